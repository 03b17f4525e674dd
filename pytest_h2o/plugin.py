"""pytest hooks. Thin: everything else is imported where a gate first needs it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_h2o.plan.needs import asks_for_ours
from pytest_h2o.plan.suites import SUITES

if TYPE_CHECKING:
    from pytest_h2o.session.session import Session

pytest_plugins = ["pytest_h2o.fixtures"]

SESSION_KEY = pytest.StashKey["Session"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("h2o", "KV-cache compression gates")
    paths = {
        "--llm-bench": "llm_bench binary (environment: LLM_BENCH)",
        "--llm-demo": "llm_demo binary (environment: LLM_DEMO)",
        "--model-config": "config.json of the model (environment: MODEL_CONFIG)",
        "--prompt-dir": "directory with prompt_<bucket>_<n>.txt (environment: PROMPT_DIR)",
        "--h2o-baseline-llm-bench": "llm_bench of a second build, which the first is held against "
        "(environment: H2O_BASELINE_LLM_BENCH)",
        "--h2o-baseline-llm-demo": "llm_demo of a second build (environment: "
        "H2O_BASELINE_LLM_DEMO)",
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
        help="insist on a runtime: embedded, mnn, pymnn, or one that a package registers "
        "(default: auto)",
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
        "--h2o-budget",
        metavar="TIME",
        help="time for all launches, such as 30m: what can be judged within it comes first",
    )
    group.addoption(
        "--h2o-hosts",
        metavar="A,B,C",
        help="hosts that {host} of the launcher stands for; several launch at once with -n: "
        "a,b,c or 'pixel=a,b server=c'",
    )
    parser.addini("h2o_hosts", help="the hosts without --h2o-hosts")
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
    group.addoption(
        "--h2o-plan",
        action="store_true",
        help="list the launches that the selected gates need, with time and disk; launch nothing",
    )
    parser.addini(
        "h2o_junit_properties",
        type="bool",
        default=False,
        help="give each test its properties in the JUnit file, which its public schema lacks",
    )
    parser.addini("h2o_profile", help="the profile to use without --h2o-profile")
    parser.addini("h2o_set", type="linelist", help="knobs, one NAME=VALUE per line")


def pytest_configure(config: pytest.Config) -> None:
    for name, text in SUITES.items():
        config.addinivalue_line("markers", f"{name}: {text}")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if config.getoption("h2o_plan"):
        from pytest_h2o.session.workers import PROCESSES  # noqa: PLC0415

        config.stash[PROCESSES] = config.getoption("numprocesses", None)
        # Workers have nothing to do; xdist may or may not have read its options by now.
        without: dict[str, object] = {"numprocesses": None, "dist": "no", "tx": []}
        vars(config.option).update(without)
    if not config.getoption("h2o_doctor"):
        return None
    from pytest_h2o.session.doctor import examine  # noqa: PLC0415

    return examine(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION_KEY, None)
    if session is not None:
        session.unregister()


def session_of(config: pytest.Config) -> Session:
    """The plugin's state of this process, made on first use; raises UsageError for wrong
    settings.
    """
    if not hasattr(config.option, "h2o_replay"):
        raise pytest.UsageError("gates need the plugin h2o; leave out -p no:h2o")
    if SESSION_KEY not in config.stash:
        from pytest_h2o.session.session import Session  # noqa: PLC0415

        config.stash[SESSION_KEY] = Session.from_config(config)
        config.stash[SESSION_KEY].register()
    return config.stash[SESSION_KEY]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if asks_for_ours(metafunc.definition):
        from pytest_h2o.fixtures import parametrize  # noqa: PLC0415

        # Wrong settings are an error of usage, not of this test: they are raised below.
        with suppress(pytest.UsageError):
            parametrize(metafunc, session_of(metafunc.config).lab)


def pytest_itemcollected(item: pytest.Item) -> None:
    if not asks_for_ours(item):
        return
    try:
        session_of(item.config).collect(item)
    except pytest.UsageError as error:
        if not hasattr(item.config, "workerinput"):
            raise
        # At collection in a worker it would be an error of xdist's own.
        from pytest_h2o.session.workers import FoundGates, tell  # noqa: PLC0415

        tell(item.config, FoundGates(error=str(error)))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    from pytest_h2o.session.workers import give  # noqa: PLC0415

    give(node.config, node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    from pytest_h2o.session.workers import told  # noqa: PLC0415

    if found := told(node):
        session_of(node.config).take_over(found)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    config = session.config
    if not config.getoption("h2o_plan"):
        return None
    from pytest_h2o.session.preview import show_plan  # noqa: PLC0415

    show_plan(config, config.stash.get(SESSION_KEY, None))
    return True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SESSION_KEY in config.stash:
        config.stash[SESSION_KEY].plan(items)
