"""pytest hooks and fixtures. Thin: everything else is imported where a gate first needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_h2o.plan.suites import SUITES, is_gate

if TYPE_CHECKING:
    from pytest_h2o.lab.lab import Lab
    from pytest_h2o.session.gate import Gate
    from pytest_h2o.session.session import Session

SESSION_KEY = pytest.StashKey["Session"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("h2o", "KV-cache compression gates")
    paths = {
        "--llm-bench": "llm_bench binary (environment: LLM_BENCH)",
        "--llm-demo": "llm_demo binary (environment: LLM_DEMO)",
        "--model-config": "config.json of the model (environment: MODEL_CONFIG)",
        "--prompt-dir": "directory with prompt_<bucket>_<n>.txt (environment: PROMPT_DIR)",
    }
    for option, text in paths.items():
        group.addoption(option, metavar="PATH", help=text)
        parser.addini(option.removeprefix("--").replace("-", "_"), help=text)
    group.addoption(
        "--h2o-set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a knob; pytest-h2o knobs lists them",
    )
    group.addoption(
        "--h2o-runtime",
        metavar="NAME",
        default="auto",
        help="insist on a runtime: embedded, mnn, or one that a package registers (default: auto)",
    )
    group.addoption(
        "--h2o-kit",
        choices=("v5", "v6"),
        default="v6",
        help="acceptance scope and defaults of this version",
    )
    group.addoption(
        "--h2o-preset",
        metavar="NAME",
        help="what -m sweep combines: a preset's name, or a JSON file",
    )
    group.addoption(
        "--h2o-profile",
        metavar="NAME|PATH",
        help="a TOML file that names a whole setup: h2o-profiles/NAME.toml",
    )
    group.addoption(
        "--h2o-launcher",
        metavar="WORDS",
        help="put in front of every program: 'srun -N1', 'ssh HOST'",
    )
    group.addoption(
        "--h2o-out", metavar="DIR", help="where run directories are kept (default: h2o-runs)"
    )
    group.addoption(
        "--h2o-replay",
        metavar="RUN_DIR",
        help="judge an earlier run or a folder of logs; launch nothing",
    )
    group.addoption(
        "--h2o-replay-baseline",
        metavar="DIR",
        help="the H2O-off run that a replayed one is compared with",
    )
    group.addoption(
        "--h2o-require-evidence",
        action="store_true",
        help="a claim that the output gives no evidence for fails its gate",
    )
    group.addoption(
        "--h2o-resume",
        metavar="RUN_DIR",
        help="reuse an earlier session's launches that nothing changed",
    )
    group.addoption(
        "--h2o-doctor",
        action="store_true",
        help="check what a run would use, and launch each program once",
    )
    parser.addini("h2o_profile", help="the profile to use without --h2o-profile")
    parser.addini("h2o_set", type="linelist", help="knobs, one NAME=VALUE per line")


def pytest_configure(config: pytest.Config) -> None:
    for name, text in SUITES.items():
        config.addinivalue_line("markers", f"{name}: {text}")


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("h2o_doctor"):
        return None
    from pytest_h2o.session.doctor import examine  # noqa: PLC0415

    return examine(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION_KEY, None)
    if session is not None:
        config.pluginmanager.unregister(session)


def session_of(config: pytest.Config) -> Session:
    """The plugin's state of this process, made on first use; raises UsageError for wrong
    settings.
    """
    if not hasattr(config.option, "h2o_replay"):
        raise pytest.UsageError("gates need the plugin h2o; leave out -p no:h2o")
    if SESSION_KEY not in config.stash:
        from pytest_h2o.session.session import Session  # noqa: PLC0415

        config.stash[SESSION_KEY] = Session.from_config(config)
        config.pluginmanager.register(config.stash[SESSION_KEY], "h2o-session")
    return config.stash[SESSION_KEY]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A worker whose controller expects no gates says so where a test asks for one: an error here
    # would be xdist's own.
    controlled = "h2o_ini" in getattr(config, "workerinput", {"h2o_ini": ""})
    if controlled and any(map(is_gate, items)):
        session_of(config).plan(items)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The session's laboratory: cases, launches, decode studies, prompts."""
    return session_of(request.config).lab


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Compares a measurement with its requirement and records the verdict."""
    return session_of(request.config).gate(request.node)
