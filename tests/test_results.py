"""Results of measurements, on the console."""

from rich.table import Table

from vidpool.results import wide_console


def test_tables_in_pipes_are_as_wide_as_their_content(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = Table(caption="short")
    cells = [f"{number} {'x' * 60}" for number in range(5)]
    for cell in cells:
        table.add_column(cell, no_wrap=True)
    table.add_row(*cells)
    wide_console().print(table)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert sum(all(cell in line for cell in cells) for line in printed.splitlines()) == 2
    assert max(map(len, printed.splitlines())) < 400
