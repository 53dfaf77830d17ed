"""Scenes shared among processes: many are dealt out, few are predicted by all together, strip by strip."""

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from tqdm import tqdm

from nets.errors import UserError
from utils.data.labels import Classes
from utils.data.raster_files import is_virtual
from utils.data.raster_reader import ImageReader
from utils.data.source import source_of
from utils.distributed import agree, count, gathered, leads, meet, rank, total
from utils.inference.class_map import ClassTotals
from utils.inference.inputs import Job, Jobs
from utils.inference.results import ResultOptions, SceneResults, forget_strips
from utils.inference.scenes import WindowOptions, predict_rest, predict_scene
from utils.inference.strips import StripResults, divide

_LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class ScenePredictor:
    """What predicts a scene, in every process the same.

    Attributes:
        predict: images (B, C, h, w) -> probabilities (B, K, h, w).
        classes: names and colours.
        windows: how a scene is cut.
        results: what is written.
        threads: threads that read.
    """

    predict: Callable[[Tensor], Tensor]
    classes: Classes
    windows: WindowOptions
    results: ResultOptions
    threads: int = 1

    def alone(self, job: Job, progress: Callable[[int], object]) -> ClassTotals:
        """Predict a scene in this process."""
        parts = self.predict, self.classes, self.windows, self.results
        return predict_scene(job, *parts, threads=self.threads, progress=progress)

    def together(self, job: Job, progress: Callable[[int], object]) -> ClassTotals:
        """Predict a scene with all processes; only the first one returns its totals.

        Raises:
            UserError: in all processes, if one of them cannot read its strip or write it.
        """
        output: SceneResults | None = None
        try:
            with _same_mistakes():
                if leads():
                    output = self._open(job)
            with _same_mistakes():
                if not leads():
                    output = self._open_strip(job)
            if agree("done" if leads() and output.done else ""):
                if leads():
                    progress(self.count_windows(job))
            else:
                self._work_together(job, output, progress)
        except BaseException as error:
            keep = not isinstance(error, UserError) or is_virtual(job.info.path)
            if output:
                output.abandon(keep)
            if not keep:  # it is the same mistake everywhere
                meet()
                forget_strips(job)
            raise
        return output.totals if leads() else ClassTotals(self.classes)

    def count_windows(self, job: Job) -> int:
        """Return how many windows all processes predict together; those across two strips count twice."""
        grid = self.windows.grid(job.info)
        return sum(len(grid.rows(strip.start, strip.stop)) for strip in _strips(job)) * len(grid.lefts)

    def _open(self, job: Job) -> SceneResults:
        if not self.results.resume:
            forget_strips(job)
        return SceneResults(job, self.classes, self.results, self.windows.settings())

    def _open_strip(self, job: Job) -> StripResults | None:
        strips = _strips(job)
        if rank() >= len(strips):  # a scene of few rows
            return None
        return StripResults(job, self.classes, self.results, self.windows.settings(), strips[rank()])

    def _work_together(
        self, job: Job, output: SceneResults | None, progress: Callable[[int], object]
    ) -> None:
        with _same_mistakes():
            if output:
                self._predict(job, output, progress)
        with _same_mistakes():
            if leads():
                self._join(job, output)

    def _predict(self, job: Job, output: SceneResults, progress: Callable[[int], object]) -> None:
        strip, grid = _strips(job)[rank()], self.windows.grid(job.info)
        if output.done:
            progress(len(grid.rows(strip.start, strip.stop)) * len(grid.lefts))
            return
        with ImageReader(source_of(job.info), self.threads) as reader:
            output.start(reader)
            more = {"stop": strip.stop, "threads": self.threads, "progress": progress}
            predict_rest(reader, self.predict, self.windows, output, **more)
        if not leads():
            output.finish()

    def _join(self, job: Job, output: SceneResults) -> None:
        resumed = replace(self.results, resume=True)
        for strip in _strips(job)[1:]:
            if strip.stop > output.writers[0].complete:
                StripResults(job, self.classes, resumed, self.windows.settings(), strip).give(output)
        output.finish()


def predict_all(work: Jobs, predictor: ScenePredictor) -> ClassTotals:
    """Predict all scenes and return the totals of all; mistakes are noted in `work`.

    Of several processes each takes whole scenes, where there are enough of them; else they share every scene.
    """
    totals = ClassTotals(predictor.classes)
    if count() == 1:
        for job in work.jobs:
            bar = tqdm(total=len(predictor.windows.grid(job.info)), desc=job.name, unit="window")
            with bar, work.attempt(job, bar.write):
                totals.merge(predictor.alone(job, bar.update))
        return totals
    shared = len(work.jobs) < count()
    if shared:
        mine, predict = work.jobs, predictor.together
        windows = sum(predictor.count_windows(job) for job in work.jobs)
    else:
        mine, predict = deal(work.jobs, count())[rank()], predictor.alone
        windows = sum(len(predictor.windows.grid(job.info)) for job in work.jobs)
    with _common_bar(windows) as (tell, progress):
        for job in mine:
            with work.attempt(job, tell):
                totals.merge(predict(job, progress))
    _share_failures(work)
    _add_up(totals)
    return totals


def deal(jobs: Sequence[Job], hands: int) -> list[list[Job]]:
    """Return the jobs of each process, the largest dealt out first, each to who has the fewest pixels."""
    dealt: list[list[Job]] = [[] for _ in range(hands)]
    pixels = [0] * hands
    for job in sorted(jobs, key=lambda job: -job.info.height * job.info.width):
        hand = pixels.index(min(pixels))
        dealt[hand].append(job)
        pixels[hand] += job.info.height * job.info.width
    return dealt


def _strips(job: Job) -> list[range]:
    return divide(job.info.height, count())


@contextmanager
def _same_mistakes() -> Iterator[None]:
    """Raise a `UserError` of one process's block in all processes."""
    mistake = ""
    try:
        yield
    except UserError as error:
        mistake = str(error)
    mistakes = [text for text in gathered(mistake) if text]
    if mistakes:
        raise UserError(mistakes[0])


@contextmanager
def _common_bar(windows: int) -> Iterator[tuple[Callable[[str], object], Callable[[int], object]]]:
    """Give what prints a line and what adds to the bar of the first process, which counts all windows."""
    # A client of its own: the threads that add and look must not wait for what the processes agree upon.
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(*address, is_master=False, wait_for_workers=False)
    counter = agree(f"windows of {uuid.uuid4()}")
    ended = threading.Event()
    with tqdm(total=windows, unit="window", disable=not leads()) as bar:

        def look() -> None:
            bar.update(store.add(counter, 0) - bar.n)

        def follow() -> None:
            while not ended.wait(_LOOK_EVERY):
                look()

        thread = threading.Thread(target=follow, daemon=True)
        try:
            if leads():
                thread.start()
            yield bar.write, lambda done: store.add(counter, done)
            meet()
        finally:
            ended.set()
            if leads():
                thread.join()
        look()


def _share_failures(work: Jobs) -> None:
    """Note the mistakes of all processes, in the order of the jobs."""
    own = {job.name: work.failures[job.info.path] for job in work.jobs if job.info.path in work.failures}
    every: dict[str, str] = {}
    for text in gathered(json.dumps(own)):
        every.update(json.loads(text))
    for job in work.jobs:
        if job.name in every:
            work.failures[job.info.path] = every[job.name]


def _add_up(totals: ClassTotals) -> None:
    """Add the counts of all processes."""
    unknown = totals.areas is None
    counts = total(torch.tensor([*totals.pixels.tolist(), totals.no_data, int(unknown)])).tolist()
    areas = total(torch.from_numpy(np.zeros(len(totals.pixels)) if unknown else totals.areas))
    totals.pixels[:] = counts[:-2]
    totals.no_data = counts[-2]
    totals.areas = None if counts[-1] else areas.numpy()
