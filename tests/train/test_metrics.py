import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidpool.train.metrics import VideoScores, accuracies, confusion_matrix


@settings(max_examples=40)
@given(
    views=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    classes=st.integers(2, 9),
    batch=st.integers(1, 5),
    ranks=st.integers(1, 3),
    seed=st.integers(0, 2**20),
)
def test_mean_softmax_over_views_in_any_order_and_on_any_rank(views, classes, batch, ranks, seed):
    rng = np.random.default_rng(seed)
    video = rng.permutation(np.repeat(np.arange(len(views)), views))
    logits = rng.standard_normal((len(video), classes))
    labels = rng.integers(classes, size=len(views))
    metrics = [VideoScores(len(views), classes) for _ in range(ranks)]
    for number, begin in enumerate(range(0, len(video), batch)):
        part = slice(begin, begin + batch)
        metrics[number % ranks].update(
            torch.from_numpy(logits[part]),
            torch.from_numpy(labels[video[part]]),
            torch.from_numpy(video[part]),
            torch.ones(len(video[part]), dtype=torch.bool),
        )
    # as torchmetrics reduces the states over ranks
    first, *others = metrics
    for other in others:
        first.scores += other.scores
        first.views += other.views
        first.labels = torch.maximum(first.labels, other.labels)
        first._update_count += other._update_count
    found, found_labels = first.mean_scores()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.stack([softmax[video == v].mean(0) for v in range(len(views))])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    assert found_labels.tolist() == labels.tolist()


def test_clips_that_fill_up_a_batch_are_left_out():
    metric = VideoScores(3, 2)
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0], [9.0, 9.0]])
    counted = torch.tensor([True, True, False])
    metric.update(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 2, 0]), counted)
    scores, labels = metric.mean_scores()
    torch.testing.assert_close(scores, logits[:2].softmax(1))
    assert labels.tolist() == [0, 1]


def test_accuracies_and_confusions():
    scores = torch.tensor([[0.4, 0.3, 0.1, 0.08, 0.06, 0.05, 0.01]] * 4)
    labels = torch.tensor([0, 1, 6, 0])
    found = accuracies(scores, labels)
    assert found["top1"] == 0.5
    assert found["top5"] == pytest.approx(0.75)
    matrix = confusion_matrix(scores, labels)
    assert matrix[:, 0].tolist() == [2, 1, 0, 0, 0, 0, 1]
    assert matrix.sum() == 4


@pytest.mark.parametrize(
    ("classes", "names"), [(2, ["top1"]), (5, ["top1"]), (6, ["top1", "top5"])]
)
def test_top5_needs_more_than_five_classes(classes, names):
    assert list(accuracies(torch.eye(classes), torch.arange(classes))) == names
