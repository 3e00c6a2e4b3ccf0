"""Predict all pictures and videos that a call names, into a folder of results."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from mmwave.apis.outputs import check_output_folder
from mmwave.apis.usage import UsageError
from mmwave.engine.console import console
from mmwave.errors import UserError, printable, printable_path

from .call import TASKS, data_file, settle_call
from .drawing import Draw, above, drawer
from .inputs import Inputs
from .model import Model, build, settle_config
from .names import OutputNames
from .reading import Reading, UnreadableError, surprises
from .videos import Video, VideoWriter, whole_video
from .writing import BEST, Item, Writer, data_writer, write_label_map, write_picture

_NAMED = 5


@dataclass
class Predictions:
    """What :func:`predict` did.

    Attributes:
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
        out: folder of results.
        pictures: pictures predicted.
        frames: frames of videos predicted.
        objects: of a detector, those that score the threshold or more.
        seconds: for all pictures and frames, from reading to writing.
        skipped: path of each picture or video that could not be read -> the reason.
        files: what lies where: path below the folder of results -> what it holds.
    """

    task: str
    out: str
    pictures: int = 0
    frames: int = 0
    objects: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Return a line with the counts, and a line for each kind of file that was written."""
        counts = [_count(self.pictures, 'image')] if self.pictures or not self.frames else []
        counts += [_count(self.frames, 'frame')] if self.frames else []
        counts += [_count(self.objects, 'object')] if self.task == 'detection' else []
        counts += [f'{len(self.skipped)} skipped'] if self.skipped else []
        each = self.seconds / max(self.pictures + self.frames, 1)
        time_each = f'{each:.0f}' if each >= 10 else f'{each:.2g}'
        lines = [f'{", ".join(counts)}, {time_each} s each -> {printable_path(self.out)}']
        width = max(map(len, self.files), default=0)
        lines += [f'  {name:{width}}  {what}' for name, what in self.files.items()]
        return '\n'.join(lines)


def predict(
    config: str,
    checkpoint: str,
    inputs: Sequence[str],
    *,
    out: str,
    json: str = 'lines',
    thr: float = 0.3,
    tta: bool = False,
    deploy: bool = False,
    amp: bool = False,
    batch: int = 1,
    device: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    trust_checkpoint: bool = False,
    verbose: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Predictions:
    """Predict pictures and videos; draw what is found, and write it as data.

    Args:
        config: the config file, or the name of a shipped config.
        checkpoint: its weights, a local file.
        inputs: files, folders, patterns, lists of paths; see :func:`.inputs.find_inputs`.
        out: folder of results, made where it is missing; docs/predict.md lists what goes into it.
        json: ``'lines'``, or of a detector ``'coco'``.
        thr: least score, 0 to 1, of objects that are drawn and counted. Data files have all that
            the model returns.
        tta, deploy, amp, device, cfg_options, trust_checkpoint, verbose: see :func:`.model.load`.
        batch: pictures that are computed at once.
        overwrite: replace results of an earlier call.
        on_progress: called with the numbers of pictures and frames done and expected.
        on_warning: called with a line, else it is logged.

    Returns:
        What was done. Pictures that cannot be read are in it with the reason.

    Raises:
        UserError: where an input stands for nothing, results are in the way, or :func:`.load`
            would refuse config, checkpoint or device.
    """
    warn = on_warning or (lambda line: print_log(line, logger='current', level=logging.WARNING))
    found = settle_call(inputs, out=out, json=json, thr=thr, batch=batch, overwrite=overwrite)
    with console(verbose) as screen:
        cfg = settle_config(config, tta=tta, cfg_options=cfg_options)
        task = TASKS[cfg.default_scope]
        if json == 'coco' and task != 'detection':
            raise UsageError(
                f'--json coco is for detectors: {task} is written to {data_file(task, "lines")}'
            )
        check_output_folder('--out', out)
        options = dict(device=device, deploy=deploy, amp=amp, trust_checkpoint=trust_checkpoint)
        model = build(cfg, checkpoint, **options)
        for line in model.warnings:
            warn(line)
        screen.end_start()
        return _Run(model, Path(out).expanduser(), json, thr, batch, on_progress, warn)(found)


class NothingPredictedError(UserError):
    """None of the pictures and videos could be read."""

    exit_code = 1


class _Waiting(NamedTuple):
    """A picture or frame that was read and is to be predicted."""

    item: Item
    reading: Reading
    picture: Path | None  # to draw into
    video: VideoWriter | None


class _Run:
    """One call: reads, predicts in batches, draws and writes."""

    def __init__(
        self,
        model: Model,
        out: Path,
        form: str,
        threshold: float,
        batch: int,
        progress: Callable[[int, int], None] | None,
        warn: Callable[[str], None],
    ) -> None:
        self._model, self._out, self._form = model, out, form
        self._threshold, self._batch, self._warn = threshold, batch, warn
        self._progress = progress or (lambda done, total: None)
        self._done = Predictions(model.task, str(out))
        self._surprises: dict[str, list[str]] = {}
        self._waiting: list[_Waiting] = []
        self._refused: Exception | None = None
        self._expected = 0

    def __call__(self, found: Inputs) -> Predictions:
        done, model = self._done, self._model
        start = time.perf_counter()
        self._expected = len(found.pictures)
        self._progress(0, self._expected)
        pictures, videos = OutputNames(found.pictures), OutputNames(found.videos)
        with model.scope(), ExitStack() as files:
            self._draw: Draw = drawer(model.task, model.classes, model.palette, self._threshold)
            self._writer: Writer = files.enter_context(
                data_writer(model.task, self._form, self._out, model.classes)
            )
            for path in found.pictures:
                self._add_picture(path, pictures.of(path))
            self._flush()
            for path in found.videos:
                self._add_video(path, videos.of(path))
            if not done.pictures + done.frames:
                raise self._nothing()
            done.seconds = time.perf_counter() - start
        self._report()
        return done

    def _nothing(self) -> Exception:
        """Return what to raise where no picture was predicted: a step's own error, if it is one."""
        if self._refused is not None:
            return self._refused
        reasons = [f'{printable_path(p)}: {r}' for p, r in self._done.skipped.items()]
        return NothingPredictedError(
            f'nothing could be read of {_count(len(reasons), "input")}: {_some(reasons)}'
        )

    def _add_picture(self, path: str, name: str) -> None:
        try:
            reading = self._model.read(path)
        except UnreadableError as error:
            self._skip(path, error)
            return
        for lost in surprises(path):
            self._surprises.setdefault(lost, []).append(path)
        height, width = reading.image.shape[:2]
        picture = self._out / 'pictures' / f'{name}.jpg'
        labels = f'labels/{name}.png' if self._model.task == 'segmentation' else None
        item = Item(path, None, width, height, labels=labels)
        self._add(_Waiting(item, reading, picture, None))

    def _add_video(self, path: str, name: str) -> None:
        try:
            video = Video(path)
        except UnreadableError as error:
            self._skip(path, error)
            return
        self._expected += video.frames
        before = self._done.frames
        with whole_video(self._out / 'videos' / f'{name}.mp4', video.fps) as writer:
            for number, frame in enumerate(video):
                try:
                    reading = self._model.read(frame)
                except UnreadableError as error:
                    self._skip(path, error)
                    break
                height, width = frame.shape[:2]
                labels = None
                if self._model.task == 'segmentation':
                    # No picture's: those of a folder of frames may be called alike.
                    labels = f'labels/{name}{Path(path).suffix}/{number:06}.png'
                item = Item(path, number, width, height, round(number / video.fps, 4), labels)
                self._add(_Waiting(item, reading, None, writer))
            self._flush()
        if self._done.frames == before and path not in self._done.skipped:
            self._skip(path, UnreadableError(printable_path(path), 'no frame can be read'))

    def _skip(self, path: str, error: UnreadableError) -> None:
        self._done.skipped[path] = error.reason
        if not error.damaged and self._refused is None:
            self._refused = error.__cause__
        self._warn(f'{printable_path(path)} is skipped: {error.reason}')

    def _add(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        if len(self._waiting) == self._batch:
            self._flush()

    def _flush(self) -> None:
        """Predict, draw and write what is waiting."""
        waiting, self._waiting = self._waiting, []
        samples = self._model.predict([one.reading for one in waiting]) if waiting else []
        for one, sample in zip(waiting, samples, strict=True):
            self._write(one, sample)

    def _write(self, one: _Waiting, sample: Any) -> None:
        done, item = self._done, one.item
        drawn = self._draw(one.reading.image, sample, one.video is not None)
        if one.video is not None:
            one.video.add(drawn)
            done.frames += 1
        elif one.picture is not None:
            write_picture(one.picture, drawn)
            done.pictures += 1
        if item.labels is not None:
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            write_label_map(self._out / item.labels, labels, self._model.palette)
        if self._model.task == 'detection':
            done.objects += len(above(sample, self._threshold).pred_instances)
        self._writer.add(item, sample)
        finished = done.pictures + done.frames
        self._progress(finished, max(self._expected - len(done.skipped), finished))

    def _report(self) -> None:
        done, task = self._done, self._model.task
        for lost, paths in self._surprises.items():
            self._warn(f'{lost}: {_some(paths)}')
        if self._model.padded:
            self._warn(
                f'too small for the backbone after the pipeline, and padded: '
                f'{_some(sorted(self._model.padded))}'
            )
        drawn = {'detection': 'boxes', 'classification': 'labels', 'segmentation': 'classes'}[task]
        if done.pictures:
            done.files['pictures/'] = f'pictures with {drawn} drawn in'
        if done.frames:
            done.files['videos/'] = f'videos with {drawn} drawn in'
        if task == 'segmentation':
            done.files['labels/'] = 'label maps: PNGs whose values are class indices'
        done.files[data_file(task, self._form)] = {
            'classification': f'the best {BEST} classes of each, with their scores',
            'detection': 'COCO results' if self._form == 'coco' else 'objects, one image a line',
            'segmentation': 'shares of the classes, one image a line',
        }[task]
        if self._form == 'coco':
            done.files['images.json'] = "files and classes of the results' numbers"


def _count(number: int, word: str) -> str:
    return f'{number:,} {word}' + ('' if number == 1 else 's')


def _some(names: Sequence[str]) -> str:
    more = f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else ''
    return ', '.join(printable(name) for name in names[:_NAMED]) + more
