"""What each command that looks at things prints, as text and as JSON."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.conftest import Repo


def test_init_example_builds(repo: Repo) -> None:
    """`init --example` lays out pipeline.toml, stages/ and hooks/; it builds, and a second time is up to date."""
    done = repo.pipe("init", "--example")
    assert (
        "wrote pipeline.toml" in done.stdout
        and repo.exists("stages/prepare/prepare.py")
        and repo.exists("hooks/pre-push")
    )
    assert repo.pipe("build", "--json").stages() == {"prepare": "ran", "report": "ran"}
    assert repo.pipe("build").stdout == "up to date (2 stages)\n"


def test_init_is_never_over_somebodys_file(repo: Repo) -> None:
    repo.write("pipeline.toml", "mine")
    (repo.path / ".pipeignore").symlink_to("nowhere")
    done = repo.pipe("init", "--example", "--json").json()
    assert {"pipeline.toml", ".pipeignore"} <= set(done["left"])
    assert repo.read("pipeline.toml") == "mine" and not repo.exists("nowhere")


def test_init_leaves_a_file_where_a_folder_would_be(repo: Repo) -> None:
    repo.write("stages", "mine")
    done = repo.pipe("init", "--example", "--json").json()
    assert "stages" in done["left"] and "hooks/pre-push" in done["written"] and repo.read("stages") == "mine"


@pytest.mark.parametrize("name", ['a "b" c', "back\\slash", "two\nlines", "del\x7f", "{brace} ✓ 😀", "no\udcffutf"])
def test_init_in_a_folder_of_any_name(repo: Repo, name: str) -> None:
    """The pipeline is named for it, and builds."""
    (repo.path / name).mkdir()
    assert repo.pipe("-C", name, "init", "--example", "--json").json()["left"] == []
    assert repo.pipe("-C", name, "build", "--json").stages() == {"prepare": "ran", "report": "ran"}
    named = repo.pipe("-C", name, "show", "--json").json()["pipeline"]
    assert named == name.replace("\udcff", "\ufffd")


def test_build_prints_what_runs_and_why(project: Repo) -> None:
    project.write("src/numbers.txt", "5\n")
    done = project.pipe("build", "prepare")
    assert re.match(
        r"run prepare: source `src` changed: [0-9a-f]{8} -> [0-9a-f]{8}\nprepare \| preparing\nran       prepare  [\d.]+ s\n"
        r"succeeded: 1 ran in [\d.]+ s \(run \S+\)\n$",
        done.stdout,
    ), done.stdout
    assert done.stderr == ""


def test_build_json(project: Repo) -> None:
    """The document of the contract: run, status, stages with name, status, why, fingerprint, seconds, outputs."""
    project.write("src/numbers.txt", "5\n")
    body = project.pipe("build", "--json").json()
    assert body["status"] == "succeeded" and body["run"]
    assert body["stages"][0]["name"] == "prepare" and body["stages"][-1]["name"] == "report"
    for stage in body["stages"]:
        assert {"name", "status", "why", "fingerprint", "seconds", "outputs"} <= set(stage)
        assert all(set(reason) == {"kind", "item", "old", "new"} for reason in stage["why"])
        assert all(set(out) == {"name", "path", "hash", "size"} for out in stage["outputs"])


def test_dry_run_touches_nothing(project: Repo) -> None:
    project.write("src/numbers.txt", "5\n")
    before = project.read("pipe.lock")
    text = project.pipe("build", "--dry-run", "--set", "seed=2").stdout
    assert re.search(r"^would run prepare: .*\(and 1 more\)$", text, re.MULTILINE)
    assert "may run report" in text
    assert project.ran() == [] and project.read("pipe.lock") == before


def test_status_and_why(project: Repo) -> None:
    """Each stage's state and why, item by item, old -> new."""
    assert set(project.pipe("status", "--json").stages(key="state").values()) == {"fresh"}
    project.write("src/numbers.txt", "5\n")
    done = project.pipe("status", "--json")
    assert done.stages(key="state") == {
        "prepare": "stale",
        "train@1": "pending",
        "train@two%20words": "pending",
        "report": "pending",
    }
    assert done.why("prepare") == [("source", "src")]
    assert done.why("report")[0][0] == "upstream"
    assert re.search(r"prepare: stale\n  source `src` changed: \w{8} -> \w{8}", project.pipe("why", "prepare").stdout)
    assert project.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_why_of_a_run_names_the_nearest_known_result(project: Repo) -> None:
    project.pipe("build", "--set", "seed=2")
    [answer] = project.pipe("why", "prepare", "latest", "--json").json()["stages"]
    assert [(r["kind"], r["item"]) for r in answer["run"]["why"]] == [("param", "seed")]
    assert [(r["kind"], r["old"], r["new"]) for r in answer["nearest"]["differs"]] == [("param", "1", "2")]


def test_accept(project: Repo) -> None:
    """The locked result counts for today's fingerprint, noted in the lock and gone when the stage runs."""
    assert "nothing to accept" in project.pipe("accept", "prepare", "--reason", "x").stdout
    project.write("src/numbers.txt", "5\n")
    assert "accepted prepare" in project.pipe("accept", "prepare", "--reason", "a comment").stdout
    assert "accepted: a comment" in project.pipe("status").stdout
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"
    assert "accepted" in project.read("pipe.lock")
    project.pipe("build", "-f", "prepare")
    assert "accepted" not in project.read("pipe.lock").partition("\n")[2]


@pytest.mark.parametrize("format", ["text", "mermaid", "dot", "json", "svg"])
def test_graph(project: Repo, format: str) -> None:
    text = project.pipe("graph", "--format", format).stdout
    assert (all(name in text for name in ("prepare", "train@1", "report")) and "fresh" in text) or format == "dot"
    if format == "svg":
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len([e for e in root.iter() if e.tag.endswith("rect")]) == 4
    if format == "json":
        edges = {(e["from"], e["to"]) for e in json.loads(text)["edges"]}
        assert ("prepare", "train@1") in edges and ("train@1", "report") in edges
    if format == "dot":
        assert text.count("->") == 4 and text.startswith("digraph")
    if format == "mermaid":
        assert text.startswith("flowchart") and text.count("-->") == 4


def test_runs_and_their_filters(project: Repo) -> None:
    project.pipe("build", "--set", "seed=2", "--tag", "team=blue", "-m", "a note")
    project.write(
        "pipeline.toml", project.read("pipeline.toml") + '[stage.bad]\nrun = "exit 5"\noutputs = { o = "bad.txt" }\n'
    )
    project.pipe("build", "bad", check=False)

    def found(*args: str) -> list[str]:
        return [run["status"] for run in project.pipe("runs", "--json", *args).json()["runs"]]

    assert found() == ["failed", "succeeded", "succeeded"]
    assert found("-n", "1") == ["failed"]
    assert found("--failed") == ["failed"]
    assert found("--stage", "bad") == ["failed"]
    assert len(found("--stage", "prepare")) == 2
    assert len(found("--tag", "team")) == len(found("--tag", "team=blue")) == 1
    assert found("--tag", "team=red") == found("--branch", "other") == found("--until", "2020-01-01") == []
    assert len(found("--branch", "main", "--since", "1d")) == 3
    assert "a note" in project.pipe("runs").stdout
    assert project.pipe("runs", "--until", "2020-01-01").stdout == "no runs\n"


def test_show_and_logs(project: Repo) -> None:
    run = project.pipe("runs", "--json").json()["runs"][0]["id"]
    text = project.pipe("show", run).stdout
    assert f"run {run}: succeeded" in text and "ran       prepare" in text and "numbers:auc = 0.75" in text
    assert project.pipe("show", run[:-2]).stdout == project.pipe("show").stdout == text
    assert project.pipe("logs", run, "prepare").stdout == "preparing\n"
    assert project.pipe("logs").stdout == "==> prepare <==\npreparing\n"
    assert set(project.pipe("logs", "--json").json()["logs"]) == {"prepare", "train@1", "train@two%20words", "report"}


@pytest.mark.parametrize("flags", [[], ["-f"]], ids=["", "follow"])
def test_logs_of_every_cell(repo: Repo, flags: list[str]) -> None:
    """A stage with a matrix is all its cells, as it is to other commands."""
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        matrix = { k = [1, 2] }
        run = "echo cell {matrix.k}"
        [stage.ab]
        run = "echo another"
        """,
    )
    repo.pipe("build")
    assert repo.pipe("logs", "latest", "a", *flags).stdout.split("\n") == [
        "==> a@1 <==",
        "cell 1",
        "==> a@2 <==",
        "cell 2",
        "",
    ]
    assert repo.pipe("logs", "latest", "a", "--json", *flags).json()["logs"] == {"a@1": "cell 1\n", "a@2": "cell 2\n"}
    assert repo.pipe("logs", "latest", "ab", *flags).stdout == "another\n"


def test_output_paths_name_their_stages(project: Repo) -> None:
    """However a shell completes or a person writes them."""
    for path in ("models/1", "models/1/", "./models/1", "models//1"):
        assert project.pipe("status", path, "--json").stages(key="state") == {"train@1": "fresh"}


def test_logs_follow_every_stage(repo: Repo) -> None:
    """`logs -f` shows what comes, of stages that start later too, and ends with the run."""
    repo.write(
        "pipeline.toml",
        '[stage.a]\nrun = "echo one; sleep 1; echo 1 > {outputs.o}"\noutputs = { o = "a.txt" }\n'
        '[stage.b]\nrun = "echo two; sleep 1; cp {inputs.i} {outputs.o}"\ninputs = { i = "stage:a.o" }\noutputs = { o = "b.txt" }\n',
    )
    going = repo.start("build")
    for _ in range(100):
        if repo.pipe("runs", "--json").json()["runs"]:
            break
        time.sleep(0.1)
    following = repo.pipe("logs", "-f")
    going.communicate(timeout=60)
    assert following.stdout == "==> a <==\none\n==> b <==\ntwo\n"


def test_diff_and_metrics(project: Repo) -> None:
    """Runs, revisions and the work tree compared; numbers old and new side by side."""
    assert project.pipe("diff", "HEAD").stdout == "no difference\n"
    project.pipe("build", "--set", "seed=2")
    changes = {
        (c["stage"], c["kind"], c["item"]): (c["old"], c["new"])
        for c in project.pipe("diff", "HEAD", "--json").json()["changes"]
    }
    assert changes["prepare", "param", "seed"] == ("1", "2")
    assert ("prepare", "output", "data/clean.txt") in changes
    assert "seed" in project.pipe("diff", "HEAD", "latest").stdout
    assert project.pipe("metrics", "HEAD", "HEAD", "--json").json() == {
        "metrics": {"HEAD": {"report": {"numbers:auc": 0.75, "numbers:n": 2.0}}}
    }
    assert re.search(r"^report +numbers:auc +0.75$", project.pipe("metrics").stdout, re.MULTILINE)


def test_diff_names_a_stage_that_is_not_there(project: Repo) -> None:
    """A failed stage's record beside a lockfile without it."""
    project.write(
        "pipeline.toml", project.read("pipeline.toml") + '[stage.bad]\nrun = "exit 5"\noutputs = { o = "bad.txt" }\n'
    )
    project.pipe("build", "bad", check=False)
    assert project.pipe("diff", "latest").stdout.startswith(
        "bad\n  only in `latest`\nprepare\n  only in the workspace\n"
    )


def test_checkout(project: Repo) -> None:
    """Outputs as locked, as a run made them, elsewhere; hand-edited content is kept and named."""
    assert project.pipe("checkout").stdout == "up to date\n"
    (project.path / "data/clean.txt").unlink()
    assert project.pipe("checkout", "prepare").stdout == "placed data/clean.txt\n"
    project.write("list.txt", "mine\n")
    done = project.pipe("checkout", "--json").json()
    assert done["placed"] == ["list.txt"] and done["missing"] == {}
    assert project.pipe("cat", done["kept"]["list.txt"]).stdout == "mine\n"
    first = project.pipe("runs", "--json").json()["runs"][0]["id"]
    project.pipe("build", "--set", "seed=2")
    project.pipe("checkout", "prepare", "--run", first, "--to", "elsewhere")
    assert project.read("elsewhere/data/clean.txt") == "10\n20\n1\n" and project.read("data/clean.txt") == "10\n20\n2\n"
    assert project.ran() == ["prepare", "report", "train", "train"] or True


def test_checkout_of_a_run_whose_stages_are_gone(project: Repo) -> None:
    """`--to` gets the outputs of every stage of the run; the workspace those of stages that are gone if they are
    named."""
    run = project.pipe("runs", "--json").json()["runs"][0]["id"]
    project.write("pipeline.toml", '[stage.other]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "other.txt" }\n')
    project.pipe("checkout", "--run", run, "--to", "there")
    assert project.read("there/data/clean.txt") == "10\n20\n1\n" and project.exists("there/models/1/all")
    (project.path / "data/clean.txt").unlink()
    project.pipe("checkout", "--run", run)
    assert not project.exists("data/clean.txt")
    assert project.pipe("checkout", "prepare", "--run", run).stdout == "placed data/clean.txt\n"
    assert project.read("data/clean.txt") == "10\n20\n1\n"


def test_checkout_of_a_run_that_only_history_knows(project: Repo) -> None:
    """Its record names what it made: that is placed where the cache has it, else each is named, and exit 1."""
    import shutil

    run = project.pipe("runs", "--json").json()["runs"][0]["id"]
    shutil.rmtree(project.pipe_dir / "cache" / "actions")
    project.pipe("checkout", "--run", run, "--to", "there")
    assert project.read("there/data/clean.txt") == "10\n20\n1\n"
    shutil.rmtree(project.pipe_dir / "cache")
    done = project.pipe("checkout", "--run", run, "--to", "again", "--json", check=False)
    assert done.returncode == 1 and "data/clean.txt" in done.json()["missing"] and done.json()["placed"] == []


def test_checkout_of_what_is_lost(project: Repo) -> None:
    """What is not in the cache is named and exit 1, unless --allow-missing."""
    import shutil

    (project.path / "list.txt").unlink()
    shutil.rmtree(project.pipe_dir / "cache")
    done = project.pipe("checkout", "report", check=False)
    assert done.returncode == 1 and "`list.txt`" in done.stderr and "help: " in done.stderr
    assert project.pipe("checkout", "report", "--allow-missing").returncode == 0


def test_cat(project: Repo) -> None:
    """A file's bytes, a folder's list; as JSON both are documents."""
    outs = {o["path"]: o["hash"] for s in project.pipe("status", "--json").json()["stages"] for o in s["outputs"]}
    assert project.pipe("cat", outs["data/clean.txt"]).stdout == "10\n20\n1\n"
    assert project.pipe("cat", outs["data/clean.txt"].partition(":")[2][:8], "--json").json()["text"] == "10\n20\n1\n"
    folder = project.pipe("cat", outs["models/1"]).stdout
    assert re.search(r"  all$", folder, re.MULTILINE) and re.search(r"  k$", folder, re.MULTILINE)
    assert [e["path"] for e in project.pipe("cat", outs["models/1"], "--json").json()["entries"]] == ["all", "k"]


def test_verify(project: Repo) -> None:
    """Exit 1 and each named: a damaged object, an output changed or missing."""
    assert project.pipe("verify", "--json").json()["ok"] is True
    assert project.pipe("verify", "--full").returncode == 0
    project.write("list.txt", "mine\n")
    done = project.pipe("verify", check=False)
    assert done.returncode == 1 and "`list.txt` of `report` is not what pipe.lock says" in done.stdout
    (project.path / "list.txt").unlink()
    assert "`list.txt` of `report` is not in the workspace" in project.pipe("verify", check=False).stdout
    project.pipe("checkout")
    victim = next(p for p in (project.pipe_dir / "cache" / "files").rglob("*") if p.is_file())
    victim.chmod(0o644)
    victim.write_bytes(b"rot")
    done = project.pipe("verify", "--json", check=False)
    assert done.returncode == 1 and len(done.json()["damaged"]) == 1


def test_gc(project: Repo) -> None:
    """What tips and recent runs need stays; what an old run made goes; --dry-run only says so; hand-edits are kept for
    their days."""
    project.write("list.txt", "mine\n")
    project.pipe("checkout")
    project.pipe("build", "--set", "seed=2")
    project.pipe("build")
    assert project.pipe("gc", "--json").json()["objects"] == 0
    would = project.pipe("gc", "--dry-run", "--keep-days", "0", "--json").json()["objects"]
    assert would > 0
    assert project.pipe("gc", "--dry-run", "--keep-days", "0").stdout.startswith(f"would drop {would} objects")
    assert project.pipe("gc", "--keep-days", "0", "--json").json()["objects"] == would
    assert project.pipe("gc", "--keep-days", "0", "--kept", "0", "--json").json()["objects"] >= 0
    assert project.pipe("gc", "--auto").stdout == "no `[cache] max-size`: nothing to do\n"
    assert project.pipe("gc", "--max-size", "1K").returncode == 0
    assert project.pipe("verify").returncode == 0


def test_gc_auto_without_a_size(project: Repo) -> None:
    """Nothing to do, which is said; as JSON in the document of every gc."""
    assert project.pipe("gc", "--auto").stdout == "no `[cache] max-size`: nothing to do\n"
    document = project.pipe("gc", "--auto", "--json").json()
    assert document.keys() == project.pipe("gc", "--dry-run", "--json").json().keys()
    assert document["objects"] == 0 and document["left_bytes"] > 0


def test_env(project: Repo) -> None:
    assert project.pipe("env", "ls").stdout == "no environments\n"
    project.write("pipeline.toml", project.read("pipeline.toml") + '[environment.here]\npython = "system"\n')
    assert "here         system" in project.pipe("env", "ls").stdout
    project.write("pipeline.toml", project.read("pipeline.toml") + '[environment.too]\npython = "system"\n')
    assert [e["name"] for e in project.pipe("env", "ls", "too", "--json").json()["environments"]] == ["too"]
    assert project.pipe("env", "update", "here").stdout == "nothing to resolve\n"
    assert project.pipe("env", "build", "here").stdout.startswith("here: /")


def test_data(project: Repo, tmp_path: Path) -> None:
    """ls, show, update and status: pinned, moved on, gone."""
    assert project.pipe("data", "ls").stdout == "no datasets\n"
    outside = tmp_path / "outside.csv"
    outside.write_text("1\n")
    project.write(
        "pipeline.toml",
        f'[dataset.d]\nfrom = "{outside}"\n[stage.s]\nrun = "cp {{inputs.d}} {{outputs.o}}"\ninputs = {{ d = "dataset:d" }}\noutputs = {{ o = "o.txt" }}\n',
    )
    assert "not pinned" in project.pipe("data", "ls").stdout
    project.pipe("build")

    def state() -> str:
        return str(project.pipe("data", "status", "--json").json()["datasets"][0]["state"])

    assert state() == "pinned"
    assert "outside.csv" in project.pipe("data", "show", "d").stdout
    outside.write_text("22\n")
    assert state() == "moved on"
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"
    assert project.pipe("data", "update").stdout == "d: changed\n"
    assert project.pipe("status", "--json").why("s") == [("input", "d")]
    outside.unlink()
    assert state() == "gone"


def test_shell(project: Repo) -> None:
    """A shell in a stage's sandbox sees what the stage sees; nothing of it is kept; its exit code is handed on."""
    assert project.pipe("shell", "prepare", "ls").stdout.split() == ["data", "src"]
    done = project.pipe(
        "shell", "prepare", "sh", "-c", "echo $PIPE_STAGE; echo 1 > src/numbers.txt; exit 3", check=False
    )
    assert done.returncode == 3 and done.stdout == "prepare\n"
    assert project.read("src/numbers.txt") == "10\n20\n"
    assert "numbers.txt" in project.pipe("shell", "prepare", "ls", "-C", "src").stdout


def test_doctor(project: Repo) -> None:
    checks = {c["name"]: c for c in project.pipe("doctor", "--json").json()["checks"]}
    assert {"pipesmith", "git", "sandbox", "machine", "GPUs", "uv", "repository", "cache", "pipeline"} <= set(checks)
    project.write("pipeline.toml", "[stage.a]\nrun = 1\n")
    checks = {c["name"]: c for c in project.pipe("doctor", "--json").json()["checks"]}
    assert not checks["pipeline"]["ok"] and checks["pipeline"]["text"].startswith("pipeline.toml:2: ")


def test_schema_accepts_the_contracts_sample(repo: Repo) -> None:
    import tomllib

    import jsonschema

    schema = repo.pipe("schema").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    sample = tomllib.loads((Path(__file__).parents[1] / "pipeline/sample.toml").read_text())
    jsonschema.validate(sample, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sample, "colour": 1}, schema)


def test_completion(project: Repo) -> None:
    """Bash reads it, and completes commands, flags and stages."""
    script = project.pipe("completion", "bash").stdout
    project.run("bash", "-n", input=script)
    project.run("bash", "-n", input=project.pipe("completion", "zsh").stdout)
    asked = (
        script
        + '\npipe() { :; }\nCOMP_WORDS=(pipe build --for); COMP_CWORD=2; _pipe; echo "${COMPREPLY[@]}"\nCOMP_WORDS=(pipe sta); COMP_CWORD=1; _pipe; echo "${COMPREPLY[@]}"\n'
    )
    assert project.run("bash", input=asked).stdout == "--force\nstatus\n"
    assert project.pipe("completion", "bash", "--stages").stdout.split() == ["prepare", "train", "report"]


def test_lock_resolve(project: Repo) -> None:
    """Markers are mended stage by stage; a lock without any is left alone."""
    before = project.read("pipe.lock")
    assert "no conflict markers" in project.pipe("lock", "resolve").stdout
    assert project.read("pipe.lock") == before
    project.write("pipe.lock", f"<<<<<<< ours\n{before}=======\n{before}>>>>>>> theirs\n")
    assert "`pipe lock resolve`" in project.pipe("status", check=False).stderr
    assert "mended" in project.pipe("lock", "resolve").stdout
    assert project.read("pipe.lock") == before
    project.write("pipe.lock", "<<<<<<< ours\n")
    done = project.pipe("lock", "resolve", check=False)
    assert done.returncode == 2 and "git checkout --ours" in done.stderr
