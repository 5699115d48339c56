"""Pictures in class folders."""

import pytest
import torch
from PIL import Image

from vidpool.data.datasets.image_folder import ImageFolderDataModule
from vidpool.data.views import normalize
from vidpool.errors import ConfigError


@pytest.fixture
def tree(tmp_path):
    """ImageNet's form with two classes, red and blue, three and two pictures of each."""
    for split, count in (("train", 3), ("val", 2)):
        for label, colour in (("n01440764", (220, 20, 20)), ("n01443537", (20, 20, 220))):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                size = (50 + 9 * number, 40)
                Image.new("RGB", size, colour).save(folder / f"{label}_{number}.JPEG")
    (tmp_path / "train" / "n01440764" / "film.mp4").touch()
    return tmp_path


def test_pictures_are_clips_of_one_frame(tree):
    data = ImageFolderDataModule(str(tree), crop=32, short_side=36, batch_size=6, num_workers=0)
    with pytest.warns(UserWarning, match=r"1 files are no .* by their names.*1 \.mp4"):
        assert data.class_names == ["n01440764", "n01443537"]
    (batch,) = data.train_dataloader()
    assert batch["clip"].shape == (6, 3, 1, 32, 32)
    assert (batch["clip"].float().mean((2, 3, 4)).argmax(1) == 2 * batch["label"]).all()
    (batch,) = data.test_dataloader()
    assert batch["label"].tolist() == [0, 0, 1, 1]
    normalised = normalize(batch["clip"], data.preprocessing.mean, data.preprocessing.std)
    red = torch.tensor([220, 20, 20]) / 255
    expected = (red - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(normalised[0, :, 0, 5, 5], expected, atol=0.05)  # JPEG


@pytest.mark.parametrize("name", ["frames", "stride", "test_clips"])
def test_what_only_videos_have_is_refused(tree, name):
    with pytest.raises(ConfigError, match=f"{name} must be 1 for pictures, got 4"):
        ImageFolderDataModule(str(tree), **{name: 4})
