"""A registry of a few small networks, on both databases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from registry import Metric, Registry
from tests.catalog.factory import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small matrices lose by threads."""
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a safetensors file for each network."""
    folder = tmp_path_factory.mktemp("weights")
    for name, make in NETWORKS.items():
        save_file(make(), folder / f"{name}.safetensors")
    return folder


@dataclass
class Filled:
    """A registry of all networks, its URL, and the folder of their files."""

    reg: Registry
    url: str
    files: Path


def fill(reg: Registry, files: Path) -> None:
    for name in NETWORKS:
        top1 = {"wide": 98.5, "slim": 97.0}.get(name)
        metrics = () if top1 is None else (Metric("top1", top1, "digits", "test"), Metric(name, 1.0))
        family = "mlp" if name == "dense" else "conv"
        done = reg.ingest(
            files / f"{name}.safetensors", family=family, dataset="digits", metrics=metrics, tags=(("made", name),)
        )
        assert (done.status, done.name, done.message) == ("added", name, "")


def fill_at(url: str, files: Path) -> None:
    with Registry(url) as reg:
        fill(reg, files)


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    path = tmp_path_factory.mktemp("shared") / "registry.db"
    fill_at(str(path), files)
    return path


@pytest.fixture
def asked(_shared: Path, files: Path) -> Iterator[Filled]:
    """The same in a SQLite file that all tests share: to be asked, not changed."""
    with Registry(_shared) as reg:
        yield Filled(reg, f"sqlite:///{_shared}", files)


@pytest.fixture
def filled(copied: Callable[..., str], files: Path) -> Iterator[Filled]:
    url = copied(fill_at, files)
    with Registry(url) as reg:
        yield Filled(reg, url, files)
