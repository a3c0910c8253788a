"""Free Spoken Digit Dataset: raw waveforms of the digits 0–9, six speakers, 8 kHz, with its official split."""

from __future__ import annotations

import io
import re
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framework.data import data_dir, fetch, keep
from plugins.state_space.data.loading import SequenceData, Sequences
from plugins.state_space.ptd.cache import cache_folder

ARCHIVE = "speech/free-spoken-digits.tar.xz"
CLONE = "speech/free-spoken-digit-dataset/recordings"
OFFICIAL = "https://github.com/Jakobovski/free-spoken-digit-dataset"
RATE = 8000
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav")
LARGEST = 4 << 20  # bytes of one recording; the longest official one has 36 kB


def decode_wav(content: bytes) -> Tensor:
    """Samples of a 16-bit mono 8 kHz WAV file, int16.

    Raises:
        ValueError: another format, or no WAV at all.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getcomptype())
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV recording: {error}") from error
    if found != (1, 2, RATE, "NONE"):
        raise ValueError(f"expected mono 16-bit {RATE} Hz PCM, not (channels, bytes, rate, compression) = {found}")
    return torch.from_numpy(np.frombuffer(frames, dtype="<i2").astype(np.int16))


def _recordings() -> Iterator[tuple[str, bytes]]:
    folder = data_dir() / CLONE
    if folder.is_dir():
        for path in sorted(folder.glob("*.wav")):
            yield path.name, path.read_bytes()
        return
    # members are read into memory and never written out: a hostile path in the archive leads nowhere
    with tarfile.open(fetch(ARCHIVE)) as archive:
        for member in archive:
            if member.isfile() and member.size <= LARGEST and (file := archive.extractfile(member)) is not None:
                yield Path(member.name).name, file.read()


def load_speech() -> tuple[list[Tensor], Tensor, Tensor]:
    """All recordings in the order of their names: int16 waveforms, digits, and indices (0–4 are the test set).

    Decoded once, then kept in the plugin's cache folder.

    Raises:
        UserError: the data are neither there nor to be had.
        ValueError: no recording of the expected name in the archive.
    """
    source = data_dir() / CLONE
    source = source if source.is_dir() else fetch(ARCHIVE)
    stat = source.stat()
    cached = cache_folder() / f"speech-{stat.st_size}-{int(stat.st_mtime)}.pt"
    if cached.is_file():
        stored = torch.load(cached, weights_only=True)
    else:
        found = {}
        for name, content in tqdm(_recordings(), desc="decoding recordings", total=3000, unit="file"):
            if match := NAME.fullmatch(name):
                found[match["digit"], match["speaker"], int(match["index"])] = decode_wav(content)
        if not found:
            raise ValueError(f"{source} holds no recording named like 7_theo_12.wav; get the data set from {OFFICIAL}")
        keys = sorted(found)
        stored = {
            "samples": torch.cat([found[key] for key in keys]),
            "lengths": torch.tensor([len(found[key]) for key in keys]),
            "digits": torch.tensor([int(key[0]) for key in keys]),
            "indices": torch.tensor([key[2] for key in keys]),
        }
        keep(cached, stored)
    waveforms = list(torch.split(stored["samples"], stored["lengths"].tolist()))
    return waveforms, stored["digits"], stored["indices"]


class SpeechDigitsData(SequenceData):
    """Waveforms as sequences (L, 1), each scaled to unit standard deviation.

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        max_length: longer recordings are cut there (95 % are shorter than 5,300 samples).
        decimate: keep every so many samples (after a mean over them).
        val_recordings: of each speaker and digit, so many training recordings (5, 6, …) validate instead; 0 for none.
    """

    def __init__(
        self,
        batch_size: int = 32,
        max_length: int = 6000,
        decimate: int = 1,
        val_recordings: int = 0,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        if max_length < decimate or decimate < 1:
            raise ValueError(f"1 <= decimate <= max_length is needed, not {decimate} and {max_length}")
        if not 0 <= val_recordings <= 40:
            raise ValueError(f"val_recordings must lie in 0 … 40 (of 45 for training), not {val_recordings}")
        self.max_length, self.decimate, self.val_recordings = max_length, decimate, val_recordings

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        waveforms, digits, indices = load_speech()
        sequences = [self._prepared(w) for w in waveforms]
        parts = {
            "test": indices < 5,
            "val": (indices >= 5) & (indices < 5 + self.val_recordings),
            "train": indices >= 5 + self.val_recordings,
        }
        for name, mask in parts.items():
            if bool(mask.any()):
                chosen = torch.nonzero(mask).squeeze(1).tolist()
                self.sets[name] = Sequences([sequences[i] for i in chosen], digits[mask])

    def _prepared(self, waveform: Tensor) -> Tensor:
        x = waveform[: self.max_length].float()
        if self.decimate > 1:
            x = x[: len(x) // self.decimate * self.decimate].view(-1, self.decimate).mean(1)
        x = x - x.mean()
        return (x / x.std().clamp_min(1e-3))[:, None]
