"""Classify videos with a trained checkpoint, and get their features.

Run it with ``python predict_and_features.py CHECKPOINT VIDEO...``.
"""

import sys

import vidpool


def main(checkpoint: str, *videos: str) -> None:
    """Print the three most probable classes of each video and the size of its features."""
    predictor = vidpool.Predictor(checkpoint)
    for video, prediction in zip(videos, predictor(list(videos)), strict=True):
        if prediction.error is not None:
            print(prediction.error)
            continue
        best = ", ".join(f"{name} {share:.1%}" for name, share in prediction.top(3))
        print(f"{video}: {best}; features {tuple(predictor.features(video).shape)}")
    # frames can also be taken from an open video, or from any uint8 tensor (T, C, H, W)
    with vidpool.open_video(videos[0]) as video:
        print(f"{video.codec}, {video.width}x{video.height}, {video.duration:.1f} s")
        print("first 16 frames:", predictor(video[:16]).top(1))


if __name__ == "__main__":
    main(*sys.argv[1:])
