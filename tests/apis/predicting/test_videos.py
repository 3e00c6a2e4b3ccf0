"""Videos are read to their last frame, and are there when they are whole."""

import numpy as np
import pytest

from mmwave.apis.predicting.reading import UnreadableError
from mmwave.apis.predicting.videos import Video, whole_video

FRAMES = 7


def frame(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 20 + 30 * index, np.uint8)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / 'deep/clip.mp4'
    with whole_video(path, 12.5) as writer:
        assert not path.exists()
        for index in range(FRAMES):
            writer.add(frame(index))
    return path


def test_what_is_written_is_read(clip):
    assert [path.name for path in clip.parent.iterdir()] == ['clip.mp4']
    video = Video(str(clip))
    assert (video.fps, video.frames) == (12.5, FRAMES)
    found = list(video)
    assert len(found) == FRAMES
    for index, image in enumerate(found):
        assert image.shape == (48, 64, 3)
        assert abs(image.mean() - frame(index).mean()) < 6


def test_odd_sizes_and_frames_of_other_sizes(tmp_path):
    with whole_video(tmp_path / 'a.mp4', 25) as writer:
        writer.add(frame(1, 47, 63))
        writer.add(frame(1, 94, 126))
    (one, other) = Video(str(tmp_path / 'a.mp4'))
    assert one.shape == other.shape
    assert one.shape[0] in (46, 47)
    assert one.shape[1] in (62, 63)


@pytest.mark.parametrize('content', [b'', b'no video' * 100])
def test_broken_videos(tmp_path, content):
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(UnreadableError, match=r'a\.mp4 cannot be read: it is') as error:
        Video(str(tmp_path / 'a.mp4'))
    assert ('empty' in error.value.reason) == (not content)


def test_a_video_that_is_cut_ends_early(clip):
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableError):
        list(Video(str(clip)))


def fail(path):
    with whole_video(path, 25) as writer:
        writer.add(frame(0))
        raise RuntimeError


def test_errors_and_no_frames_leave_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        fail(tmp_path / 'a.mp4')
    with whole_video(tmp_path / 'a.mp4', 25):
        pass
    assert not list(tmp_path.iterdir())


def test_an_older_video_stays_until_then(clip):
    before = clip.read_bytes()
    with pytest.raises(RuntimeError):
        fail(clip)
    assert clip.read_bytes() == before
