"""The package: what `import rov` gives and costs, its extras, and who else may own its name."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import rov
from rov import extras, messages
from rov.errors import UserError
from rov.host import doctor, ownership
from rov.resources import checkout
from tests.logs import TlogFile, attitude, heartbeat
from tests.rooms import imported

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]


def python(text: str, *options: str) -> str:
    """What a fresh Python prints for this program."""
    environment = os.environ | {"PYTHONPATH": str(checkout())}
    run = subprocess.run(
        [sys.executable, *options, "-c", text], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_every_public_name_is_there_and_documented() -> None:
    for name in rov.__all__:
        value = getattr(rov, name)
        if isinstance(value, type):
            assert value.__name__ == name and value.__doc__ and not value.__doc__.startswith(f"{name}("), name
    assert set(rov.__all__) <= set(dir(rov))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = rov.Nonsense  # type: ignore[attr-defined]
    structs = {name for name, value in vars(messages).items() if isinstance(value, type) and name[0].isupper()}
    ours = {name for name in structs if getattr(messages, name).__module__ == "rov.messages"} - {"Topic"}
    assert not ours - set(rov.__all__), "a new message belongs into rov/__init__.py, too: three lines"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((checkout() / "rov" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*seen, "__version__"} == set(rov.__all__)
    assert {name: home for name, home in seen.items() if home != "rov.messages"} == rov._HOMES
    assert (checkout() / "rov" / "py.typed").exists()


def test_importing_rov_costs_nothing() -> None:
    """It brings two modules of its own and nothing of others: what a name needs is imported with the name. The best of
    five: a busy machine is slower."""
    watch = "import time; t = time.perf_counter(); import rov; print(time.perf_counter() - t)"
    assert min(float(python(watch)) for _ in range(5)) < 0.1
    code = "import sys; before = {*sys.modules}; import rov; print(*{*sys.modules} - before)"
    brought = python(code).split()
    assert len([each for each in brought if each.startswith("rov")]) == 2, brought
    assert {each.partition(".")[0] for each in brought} - {"rov"} <= sys.stdlib_module_names, brought


@pytest.mark.parametrize(
    "imports",
    ["import rov.pilotd", "from rov import Client, AsyncClient, Mode", "from rov import Dive, Config",
     "import rov.operator.drive, rov.operator.commands, rov.operator.listening", "import rov.cli.app"],
    ids=["pilotd", "client", "dive", "operator", "command line"],
)  # fmt: skip
def test_what_needs_no_torch_loads_none(imports: str) -> None:
    assert python(f"import sys; {imports}; print([m for m in ('torch', 'matplotlib') if m in sys.modules])") == "[]"


def test_a_client_loads_neither_server_nor_dives() -> None:
    loaded = python("import sys; from rov import Client; print([m for m in sys.modules if m.startswith('rov')])")
    for module in ("public_server", "command_gateway", "rov.dives", "rov.config", "rov.link"):
        assert module not in loaded


# ---- extras --------------------------------------------------------------------------------------------------------


WITHOUT = """
import sys
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("torch", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing)
"""
"""Takes the extras away from a program."""


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    assert set(extras.EXTRAS.values()) <= set(PROJECT["optional-dependencies"])
    assert PROJECT["name"] == extras.DISTRIBUTION
    said = python(WITHOUT + "try:\n  from rov import Detector\nexcept ImportError as error: print(error)")
    assert said == "this needs torch, which is not installed here: pip install 'rov-autopilot[vision]'"


def test_without_extras_dives_imports_and_commands_run(tmp_path: Path) -> None:
    log = TlogFile()
    for i in range(20):
        log.add(i / 10, heartbeat() if i % 10 == 0 else attitude(100 + i / 10))
    log.write(tmp_path / "l.tlog")
    sample, nobody = checkout() / "sim" / "sample.mcap", f"ipc://{tmp_path}"
    (tmp_path / "rover.toml").write_text(
        f'[vehicle]\nmax_depth = 30\n[bus]\npublic = "{nobody}/a"\ncommands = "{nobody}/b"\n'
    )
    commands = {
        f"dive info {sample}": 0, "import --tlog l.tlog --out d.mcap": 0, "config check rover.toml": 0,
        "ctl stop": 2, f"replay {sample} --out out": 2, "doctor": 1,
    }  # fmt: skip
    said = python(
        "import os\n" + WITHOUT + "from rov.__main__ import main\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"for words in {list(commands)}:\n"
        "  sys.argv[1:] = words.split()\n"
        "  sys.stderr = sys.stdout\n"
        "  try: main()\n"
        "  except SystemExit as end: print(f'exit {end.code}: {words}')\n"
    )
    for words, code in commands.items():
        assert f"exit {code}: {words}" in said, said
    assert "19 states" in said or "18 states" in said, said
    assert said.count("rov-autopilot[vision]") == 2, "replay and doctor say what to install"


IMPORT_NAMES = {
    "cv2": "opencv-python-headless", "yaml": "pyyaml", "zmq": "pyzmq", "nacl": "pynacl", "serial": "pyserial",
    "google": "protobuf", "foxglove_schemas_protobuf": "foxglove-schemas-protobuf", "tomli_w": "tomli-w",
    "array_api_compat": "array-api-compat", "pydantic_core": "pydantic",
}  # fmt: skip
"""Distributions whose name is not that of their module."""


def test_whatever_is_imported_is_declared() -> None:
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["vision"]]
    declared = {Requirement(line).name for line in (*lines, *PROJECT["optional-dependencies"]["report"])}
    found = {name.partition(".")[0] for path in (checkout() / "rov").rglob("*.py") for name in imported(path)}
    others = {name for name in found if name not in sys.stdlib_module_names and name not in ("rov", "msvcrt")}
    assert {IMPORT_NAMES.get(name, name) for name in others} == declared


# ---- whose name it is ----------------------------------------------------------------------------------------------


def installed(folder: Path, name: str, version: str, *files: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{each},,\n" for each in files))


def test_another_owner_of_the_name_is_found(tmp_path: Path) -> None:
    installed(tmp_path, "rov_autopilot", "0.2.0", "rov/__init__.py", "rov/pilotd.py")
    installed(tmp_path, "other", "1.0", "other/rov/__init__.py", "rover/__init__.py")
    installed(tmp_path, "rov-old", "0.1.0", "rov/assets/rover.toml")  # an editable installation: no package of its own
    began = time.monotonic()
    assert ownership.strangers([str(tmp_path)]) == [] and time.monotonic() - began < 1.0
    installed(tmp_path, "rov", "0.6.0", "../../../bin/rov", "rov/__init__.py")
    assert ownership.strangers([str(tmp_path)]) == ["rov 0.6.0"]


def test_doctor_and_service_refuse_another_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._package().state == "ok", "this environment is clean"
    ownership.must_be_ours()
    monkeypatch.setattr(ownership, "strangers", lambda: ["rov 0.6.0"])
    monkeypatch.setattr(doctor, "strangers", lambda: ["rov 0.6.0"])
    finding = doctor._package()
    assert finding.state == "missing" and finding.needed and "rov 0.6.0" in finding.found
    with pytest.raises(
        UserError, match="rov 0.6.0 has a package rov, too, and may replace this one: pip uninstall rov"
    ):
        ownership.must_be_ours()


def test_rov_run_asks_before_it_starts_anything(tmp_path: Path) -> None:
    installed(tmp_path / "site", "rov", "0.6.0", "rov/__init__.py")
    (tmp_path / "rover.toml").write_text("[vehicle]\nmax_depth = 30\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(checkout()), str(tmp_path / "site")))}
    command = [sys.executable, "-m", "rov", "run", str(tmp_path / "rover.toml")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2 and "rov 0.6.0 has a package rov, too" in run.stderr
