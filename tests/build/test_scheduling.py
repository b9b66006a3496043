"""Which stage is started when, and beside which others: the longest path first, and within what was asked for."""

from __future__ import annotations

import json

import pytest

ALONE = "mkdir $HOME/held && sleep 0.3 && rmdir $HOME/held && echo 1 > {outputs.o}"
MEET = "touch $HOME/in-{n} && for i in $(seq 500); do test -e $HOME/in-{o} && break; sleep 0.02; done; test -e $HOME/in-{o} && echo 1 > {{outputs.o}}"


def memory_bytes() -> int:
    from pipesmith.executors.probe import machine_capacity

    found = machine_capacity().memory_bytes
    if found is None:
        pytest.skip("how much memory this machine has is not known")
    return found


def started(built) -> list[str]:
    """Return the stages in the order in which a build started them."""
    return [line.split()[1].rstrip(":") for line in built.stdout.splitlines() if line.startswith("run ")]


@pytest.fixture
def paced(repo, toml):
    """A pipeline whose stages take their time while `v` is 1: `tail` comes after `head`."""
    naps = {"quick": "0", "mid": "0.8", "long": "1.6", "head": "0", "tail": "2.4"}
    toml("".join(f"""
        [stage.{name}]
        run = "test {{params.v}} = 1 && sleep {nap}; echo {{params.v}} > {{outputs.o}}"
        outputs = {{ o = "{name}.out" }}
        {'inputs = { i = "head.out" }' if name == "tail" else ""}
    """ for name, nap in naps.items()))  # fmt: skip
    repo.write("params.yaml", "v: 1\n")
    text = repo.read("pipeline.toml")
    repo.write("pipeline.toml", f"[params]\nv = 1\n{text}")
    return repo


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_longest_path_comes_first_by_past_durations(paced, jobs: int) -> None:
    assert sorted(started(paced.pipe("build", "-j5"))) == ["head", "long", "mid", "quick", "tail"]
    order = started(paced.pipe("build", f"-j{jobs}", "--set", "v=2"))
    if jobs == 1:
        assert order == ["head", "tail", "long", "mid", "quick"]
    else:
        assert order[:2] == ["head", "long"] and order[-1] == "quick"


def test_without_a_history_the_longest_chain_comes_first(repo, toml) -> None:
    toml("".join(f"""
        [stage.{name}]
        run = "echo 1 > {{outputs.o}}"
        outputs = {{ o = "{name}.out" }}
        {f'inputs = {{ i = "{before}.out" }}' if before else ""}
    """ for name, before in (("a", ""), ("b", ""), ("c", "b"), ("d", "c"))))  # fmt: skip
    assert started(repo.pipe("build", "-j1"))[0] == "b"


@pytest.mark.parametrize("other", ["local", "again"])
def test_memory_is_packed_by_what_was_asked(repo, toml, other: str) -> None:
    """Two that do not fit beside each other never run at once, though their computes have two names; one that asks for
    what is left runs beside."""
    most = memory_bytes()
    again = '[compute.again]\nkind = "local"\n'
    toml("".join(f"""
        [stage.{name}]
        run = "{run}"
        outputs = {{ o = "{name}.out" }}
        compute = "{compute}"
        resources = {{ memory = "{int(most * share)}" }}
    """ for name, run, compute, share in (
        ("a", ALONE, "local", 0.6),
        ("b", ALONE, other, 0.6),
        ("c", MEET.format(n="c", o="d"), "local", 0.1),
        ("d", MEET.format(n="d", o="c"), other, 0.1),
    )))  # fmt: skip
    repo.write("pipeline.toml", again + repo.read("pipeline.toml"))
    repo.pipe("build", "-j4")


def test_far_more_memory_than_asked_for_is_said(repo, toml) -> None:
    """Where people see it, and in the record; never of a stage that keeps to what it asked for."""
    toml("""
        [stage.greedy]
        run = ["python3", "-c", "x = bytearray(300 << 20); open('g', 'w')"]
        outputs = { o = "g" }
        resources = { memory = "100M" }
        [stage.modest]
        run = ["python3", "-c", "x = bytearray(60 << 20); open('m', 'w')"]
        outputs = { o = "m" }
        resources = { memory = "100M" }
    """)
    built = repo.pipe("build")
    (said,) = [line for line in built.stderr.splitlines() if "asked for" in line]
    assert "`greedy` used 3" in said and "MB of memory and asked for 104.9 MB" in said
    assert 'resources = { memory = "3' in built.stderr
    record = repo.pipe("show", "latest", "--json").json()
    notes = {stage["name"]: stage["notes"] for stage in record["stages"]}
    assert notes["modest"] == [] and "asked for 104.9 MB" in notes["greedy"][0]
    assert "asked for 104.9 MB" in repo.pipe("show", "latest").stdout
    again = json.loads(repo.pipe("build", "--force", "--json").stdout)
    assert {stage["name"]: bool(stage["notes"]) for stage in again["stages"]} == {"greedy": True, "modest": False}


def test_a_compute_may_have_less_than_the_machine(repo, toml, tmp_path) -> None:
    """`[compute.local] cpus = 1`: one stage at a time, with its CPU asked for or not; who asks for more is told so."""
    toml(f"""
        [compute.local]
        cpus = 1
        [stage.a]
        run = "mkdir {tmp_path}/one && sleep 0.3 && rmdir {tmp_path}/one && echo 1 > {{outputs.o}}"
        outputs = {{ o = "a" }}
        [stage.b]
        run = "mkdir {tmp_path}/one && sleep 0.3 && rmdir {tmp_path}/one && echo 1 > {{outputs.o}}"
        outputs = {{ o = "b" }}
    """)
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "ran"}
    resources = "resources = { cpus = 1 }\noutputs = {"
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("outputs = {", resources))
    assert repo.pipe("build", "-j4", "--force", "--json").stages() == {"a": "ran", "b": "ran"}
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("{ cpus = 1 }", '{ cpus = 1.5, memory = "1G" }'))
    done = repo.pipe("build", "--force", check=False)
    assert done.returncode == 2 and "`a` asks for 1.5 CPUs, `local` has 1" in done.stderr
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("cpus = 1\n", 'memory = "512M"\n'))
    assert "`a` asks for 1G of memory, `local` has 0.5G" in repo.pipe("build", "--force", check=False).stderr
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace('"512M"', '"2M"'))
    assert "`a` asks for 1G of memory, `local` has 2.0M" in repo.pipe("build", "--force", check=False).stderr
