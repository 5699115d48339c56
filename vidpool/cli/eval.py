"""``vidpool eval``: the paper's tables, from data that the user has."""

from vidpool.cli import eval_mcnemar, eval_similarity, eval_table7
from vidpool.cli.subcommands import run_subcommand


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool eval WHAT``."""
    parts = [module.add_parser for module in (eval_similarity, eval_mcnemar, eval_table7)]
    description = "Measure what the SoftPool paper has in its tables, beside its own numbers."
    return run_subcommand(verb, arguments, parts, description)
