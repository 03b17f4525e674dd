"""What must hold between the build under test and a second one, such as the last release, with the
same settings.
"""

from __future__ import annotations

import pytest

from pytest_h2o.lab.builds import Builds
from pytest_h2o.session.gate import Gate

pytestmark = pytest.mark.release


@pytest.mark.relations
def test_build_decode(plain_builds: Builds, gate: Gate) -> None:
    """With H2O off the build under test must decode as fast as the second build, within the decode
    limit.

    A candidate that is compared with a baseline of its own build looks fast where both are slow.
    """
    gate.needs("RELATION_BUILD")
    gate.passes_study(plain_builds.study, "DECODE_DROP_TARGET")


@pytest.mark.relations
def test_build_texts(plain_builds: Builds, gate: Gate) -> None:
    """With H2O off the build under test must write what the second build writes.

    Texts that part late are a doubt: kernels of another build may round otherwise.
    """
    _same_texts(plain_builds, gate)


def test_release_decode(full_builds: Builds, gate: Gate) -> None:
    """With H2O on the build under test must decode as fast as the second build, within the decode
    limit.
    """
    gate.needs("RELATION_BUILD")
    gate.passes_study(full_builds.study, "DECODE_DROP_TARGET")


def test_release_texts(full_builds: Builds, gate: Gate) -> None:
    """With H2O on the build under test must write what the second build writes.

    Texts that part late are a doubt: kernels of another build may round otherwise. Where most part
    though all are the same with H2O off, other tokens were kept.
    """
    _same_texts(full_builds, gate)


def test_release_numbers(full_builds: Builds, gate: Gate) -> None:
    """The build under test must save as much KV as the second build: lossy and lossless ratio may
    not fall by more than the limit.
    """
    gate.needs("RELATION_BUILD")
    gate.at_most(full_builds.loss, "MAX_BUILD_LOSS")


def _same_texts(builds: Builds, gate: Gate) -> None:
    gate.needs("RELATION_BUILD")
    found = builds.texts
    gate.holds("same_text", found.problems, cause=found.cause, evidence=found.evidence)
