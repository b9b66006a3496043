"""What every executor gives a stage, and what it gives back: the same, wherever it runs."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

import pytest


def logs(repo, stage: str) -> str:
    return repo.pipe("logs", "latest", stage).stdout


def error_of(result, stage: str) -> str:
    """Return what a build in JSON says of a stage that failed."""
    return next(entry for entry in result.json()["stages"] if entry["name"] == stage).get("error") or ""


def test_outputs_of_every_kind(repo, place, pipeline):
    """Files, folders, empty ones, odd names, links, executable bits; and nothing that was not declared."""
    pipeline(
        place,
        r"""
        [stage.a]
        source = "make.sh"
        run = "sh make.sh {outputs.folder} {outputs.file}"
        outputs = { folder = "out/folder", file = "out/a file" }
        """,
    )
    repo.write(
        "make.sh",
        r"""
        set -e
        mkdir -p "$1/empty" "$1/deep/er"
        printf 'text' > "$1/deep/er/file"
        printf '#!/bin/sh\n' > "$1/tool"; chmod 755 "$1/tool"
        ln -s deep/er/file "$1/link"; ln -s nowhere "$1/dangling"
        printf odd > "$1/$(printf 'new\nline \351 ünï')"
        printf '' > "$2"; printf x > stray; mkdir out/stray
        """,
    )
    repo.pipe("build")
    root = repo.path / "out"
    assert sorted(os.listdir(root)) == ["a file", "folder"]
    folder = root / "folder"
    assert os.listdir(folder / "empty") == []
    assert (folder / "deep/er/file").read_text() == "text"
    assert os.access(folder / "tool", os.X_OK) and not os.access(folder / "deep/er/file", os.X_OK)
    assert os.readlink(folder / "link") == "deep/er/file" and os.readlink(folder / "dangling") == "nowhere"
    assert b"new\nline \xe9 \xc3\xbcn\xc3\xaf" in os.listdir(os.fsencode(folder))
    assert (root / "a file").read_bytes() == b""
    assert not repo.exists("stray")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_inputs_of_every_kind(repo, place, pipeline):
    """They arrive as they are: names, links, executable bits, empty folders."""
    folder = os.fsencode(repo.path / "data")
    os.makedirs(folder + b"/empty")
    os.makedirs(folder + b"/deep/er")
    for name in (b"new\nline", b"\xe9 \xc3\xbc", b"-dash", b"deep/er/file", b".hidden"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(name)
    os.chmod(folder + b"/-dash", 0o755)
    os.symlink("deep/er/file", folder + b"/link")
    os.symlink("deep", folder + b"/folder-link")
    pipeline(
        place,
        '[stage.a]\nrun = "cp -a {inputs.d} {outputs.o}"\ninputs = { d = "data" }\noutputs = { o = "copy" }\n',
    )
    repo.pipe("build")
    assert tree(repo.path / "copy") == tree(repo.path / "data")


def tree(top) -> dict[bytes, object]:
    """Return what lies in a folder: content and executable bit of files, texts of links, None for folders."""
    found: dict[bytes, object] = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            below = os.path.relpath(path, os.fsencode(top))
            if os.path.islink(path):
                found[below] = os.readlink(path)
            elif os.path.isdir(path):
                found[below] = None
            else:
                with open(path, "rb") as file:
                    found[below] = (file.read(), os.access(path, os.X_OK))
    return found


def test_the_same_fingerprint_and_outputs_as_here(repo, place, pipeline):
    """Where a stage ran is no part of its fingerprint: what one place made, another one restores."""
    repo.write("in.txt", "1\n")
    text = """
        [stage.a]
        run = "tr 1 2 < {inputs.i} > {outputs.o}"
        inputs = { i = "in.txt" }
        outputs = { o = "o.txt" }
    """
    pipeline(place, text.replace("[stage.a]", '[stage.a]\nenvironment = "tools"'))
    first = repo.pipe("build", "--json").json()["stages"][0]
    assert repo.read("o.txt") == "2\n"
    toml = repo.read("pipeline.toml").replace('compute = "where"', 'compute = "there"', 1)
    repo.write("pipeline.toml", toml.replace("[compute.where]", "[compute.there]"))
    second = repo.pipe("build", "--json").json()["stages"][0]
    assert second["status"] == "fresh" and second["fingerprint"] == first["fingerprint"]


def test_what_a_stage_is_given(repo, place, pipeline):
    """Source that it may scribble on, inputs that it can't change, folders of outputs, params, variables; nothing else."""
    repo.write("src/code.txt", "code")
    repo.write("src/tool", "#!/bin/sh\necho tool\n", executable=True)
    repo.write("data/sub/x.txt", "x\n")
    repo.write("one.txt", "one\n")
    repo.write("undeclared.txt", "no")
    repo.commit()
    pipeline(
        place,
        """
        [params]
        depth = 3
        [stage.a]
        source = "src"
        run = \"\"\"
        set -e
        echo changed > src/code.txt; src/tool
        cat data/sub/x.txt one.txt
        test ! -e undeclared.txt && test ! -e .git && test ! -e o && test -d out/deep
        echo "$DEPTH $PIPE_STAGE $PIPE_INPUT_D $PIPE_OUTPUT_O $PIPE_PARAMS $LANG $TZ [$CUDA_VISIBLE_DEVICES] $(pwd | wc -l)"
        echo t > "$TMPDIR/t"; test -s "$PIPE_CONTEXT"; touch "$HOME/.pipesmith-conformance"
        echo {params.depth} > {outputs.o}
        \"\"\"
        inputs = { d = "data", one = "one.txt" }
        outputs = { o = "out/deep/o" }
        env = { DEPTH = "deep" }
        """,
    )
    repo.pipe("build")
    said = logs(repo, "a").splitlines()
    assert [line for line in said if line in ("tool", "x", "one")] == ["tool", "x", "one"]
    assert 'deep a data out/deep/o {"depth": 3} C.UTF-8 UTC [] 1' in said
    assert repo.read("src/code.txt") == "code" and repo.read("data/sub/x.txt") == "x\n"
    assert repo.read("out/deep/o") == "3\n"


def test_the_git_folders_of_inputs_are_unseen(repo, place, pipeline):
    """They do not count, so they are not given: neither of an input that holds another one, nor of any else."""
    for folder in ("data/lib", "more"):
        repo.write(f"{folder}/x", "1")
        repo.git("-C", folder, "init", "-q")
    pipeline(
        place,
        """
        [stage.a]
        run = "find data more -name '.git*' -o -type f > {outputs.o}"
        inputs = { d = "data", m = "more", x = "data/lib/x" }
        outputs = { o = "o" }
        """,
    )
    repo.pipe("build")
    assert sorted(repo.read("o").split()) == ["data/lib/x", "more/x"]


def test_inputs_cannot_be_changed(repo, place, pipeline):
    """The write fails, or, where nothing can keep root from it, the stage does; the workspace's own stay as they are."""
    repo.write("data/x.txt", "x\n")
    pipeline(
        place,
        """
        [stage.a]
        run = "echo bad > data/x.txt; echo bad > data/new; echo 1 > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o" }
        """,
    )
    result = repo.pipe("build", "--json", check=False)
    assert repo.read("data/x.txt") == "x\n" and os.listdir(repo.path / "data") == ["x.txt"]
    if result.returncode:
        assert place.name == "copies" and "wrote to its input `data`" in error_of(result, "a")
    else:
        assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_cwd_links_cells_and_datasets(repo, place, pipeline):
    """Inputs of every origin, seen from a folder of the source."""
    repo.write("data/a.txt", "a\n")
    (repo.path / "data" / "link").symlink_to("a.txt")
    repo.write("../elsewhere/one/1.txt", "1\n")
    repo.write("../elsewhere/two/2.txt", "2\n")
    repo.write("work/run.sh", "set -e; cat ../data/link ../m/*; cd ..; find inputs m -type f | sort; echo 1 > out/o\n")
    pipeline(
        place,
        f"""
        [dataset.far]
        from = "{repo.path.parent}/elsewhere/**"
        [stage.m]
        run = "echo {{matrix.n}} > {{outputs.m}}"
        matrix = {{ n = [1, 2] }}
        outputs = {{ m = "made/{{matrix.n}}.txt" }}
        [stage.a]
        source = "work"
        cwd = "work"
        run = "sh run.sh"
        inputs = {{ d = "data", m = {{ from = "stage:m@*.m", path = "m" }}, far = "dataset:far" }}
        outputs = {{ o = "out/o" }}
        """,
    )
    repo.pipe("build")
    found = ["inputs/far/one/1.txt", "inputs/far/two/2.txt", "m/1", "m/2"]
    assert logs(repo, "a").split() == ["a", "1", "2", *found]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_the_network_is_that_of_its_machine(repo, place, pipeline):
    """What listens on localhost there is reached; wherever it runs, a stage is no stranger on its machine."""
    pipeline(
        place,
        """
        [stage.a]
        run = ["python", "-c", "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ['PORT']))); open('o', 'w').write(s.recv(9).decode())"]
        env = { PORT = "%d" }
        outputs = { o = "o" }
        """,
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        toml = repo.read("pipeline.toml")
        repo.write("pipeline.toml", toml.replace("%d", str(server.getsockname()[1])))
        process = repo.start("build", "--json")
        server.settimeout(120)
        connection, _address = server.accept()
        connection.sendall(b"hello")
        connection.close()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert repo.read("o") == "hello"


def test_the_sdk(repo, place, pipeline):
    repo.write("data/x.csv", "a\n1\n")
    repo.write(
        "src/a.py",
        """
        from pipesmith.sdk import Run
        run = Run.get_context()
        for step in range(3):
            run.log("loss", 1.0 / (step + 1), step=step)
        run.outputs["o"].path.write_text(f"{run.stage} {run.params['depth']} {run.inputs['d'].path.name} {run.git.branch}")
        """,
    )
    pipeline(
        place,
        """
        [params]
        depth = 3
        [stage.a]
        source = "src"
        run = "python src/a.py"
        params = ["depth"]
        inputs = { d = "data" }
        outputs = { o = "o" }
        """,
    )
    repo.commit()
    repo.pipe("build")
    assert repo.read("o") == "a 3 data main"
    (logged,) = (repo.pipe_dir / "logs").glob("*/a.log.jsonl")
    assert [json.loads(line)["step"] for line in logged.read_text().splitlines()] == [0, 1, 2]
    assert not logged.is_symlink()


@pytest.mark.parametrize("code", [1, 3, 127])
def test_exit_codes(repo, place, pipeline, code):
    pipeline(place, f'[stage.a]\nrun = "echo out; echo err >&2; exit {code}"\noutputs = {{ o = "o" }}\n')
    result = repo.pipe("build", "--json", check=False)
    assert result.returncode == 1
    assert f"exited with {code}" in error_of(result, "a")
    assert sorted(logs(repo, "a").split()) == ["err", "out"]
    record = repo.pipe("show", "latest", "--json").json()
    assert next(each for each in record["stages"] if each["name"] == "a")["exit_code"] == code
    assert not repo.exists("o")


def test_a_signal_is_a_failure(repo, place, pipeline):
    pipeline(place, '[stage.a]\nrun = "echo 1 > {outputs.o}; kill -9 $$"\noutputs = { o = "o" }\n')
    result = repo.pipe("build", "--json", check=False)
    assert result.returncode == 1 and not repo.exists("o")
    assert error_of(result, "a") == ("exited with 137" if place.is_far else "was killed by signal 9")


def test_a_command_that_is_not_there(repo, place, pipeline):
    pipeline(place, '[stage.a]\nrun = ["no-such-program"]\noutputs = { o = "o" }\n')
    result = repo.pipe("build", "--json", check=False)
    assert result.returncode == 1
    assert "`no-such-program` is not" in error_of(result, "a")


@pytest.mark.parametrize(("run", "output"), [("true", "o"), ("rmdir d && touch d", "d/o")])
def test_an_output_that_was_not_made(repo, place, pipeline, run, output):
    pipeline(place, f'[stage.a]\nrun = "{run}"\noutputs = {{ o = "{output}" }}\n')
    result = repo.pipe("build", "--json", check=False)
    assert result.returncode == 1
    assert "did not make output `o`" in error_of(result, "a")


def test_secrets_are_masked(repo, place, pipeline):
    pipeline(
        place,
        """
        [stage.a]
        run = "echo $TOKEN; printf hunter-; sleep 0.2; echo hunter; echo > {outputs.o}"
        outputs = { o = "o" }
        pass-env = ["TOKEN"]
        """,
    )
    built = repo.pipe("build", env={"TOKEN": "hunter-hunter"})
    assert logs(repo, "a").split() == ["***", "***"]
    assert "hunter" not in built.stdout + built.stderr


def test_secrets_are_masked_in_what_it_logs(repo, place, pipeline):
    repo.write(
        "src/a.py",
        """
        import os
        from pipesmith.sdk import Run
        run = Run.get_context()
        run.log(os.environ["TOKEN"], 1)
        run.log_table("seen", [{"token": os.environ["TOKEN"]}])
        run.outputs["o"].path.write_text("1")
        """,
    )
    pipeline(
        place,
        '[stage.a]\nsource = "src"\nrun = "python src/a.py"\noutputs = { o = "o" }\npass-env = ["TOKEN"]\n',
    )
    built = repo.pipe("build", "-v", env={"TOKEN": "hunter-hunter"})
    kept = [path for path in repo.pipe_dir.joinpath("logs").rglob("*") if path.is_file()]
    assert len(kept) >= 2 and not [path for path in kept if b"hunter" in path.read_bytes()]
    assert "hunter" not in built.stdout + built.stderr


def test_output_is_live_on_both_streams(repo, place, pipeline):
    """While the stage runs, here and for those who follow the run."""
    pipeline(place, '[stage.a]\nrun = "echo out; echo err >&2; sleep 300"\noutputs = { o = "o" }\n')
    process = repo.start("build", "-v")
    seen_by(process, "out", "err")
    run = repo.pipe("runs", "--json").json()["runs"][0]["id"]
    following = repo.start("logs", run, "a", "-f")
    seen_by(following, "out", "err")
    os.kill(process.pid, signal.SIGINT)
    for each in (process, following):
        each.communicate(timeout=60)
    assert process.returncode == 130


def seen_by(process, *words: str) -> None:
    """Wait until a process has said all words."""
    left = set(words)
    for line in process.stdout:
        left -= {word for word in left if line.split()[-1:] == [word]}
        if not left:
            return
    pytest.fail(f"never said: {left}")


def test_much_output_is_whole_in_the_log(repo, place, pipeline):
    pipeline(
        place,
        """
        [stage.a]
        run = "i=0; while [ $i -lt 20000 ]; do echo line $i of many, long enough; i=$((i+1)); done; echo > {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    repo.pipe("build", "-q")
    said = logs(repo, "a").splitlines()
    assert len(said) == 20000 and said[-1].startswith("line 19999")


def test_timeout(repo, place, pipeline):
    pipeline(place, '[stage.a]\nrun = "echo begun; sleep 100"\noutputs = { o = "o" }\ntimeout = "1s"\n')
    result = repo.pipe("build", "--json", check=False)
    assert result.returncode == 1
    assert "timed out" in error_of(result, "a")


def test_retries_and_the_keep_folder(repo, place, pipeline):
    """A second try finds what the first one kept; after success it is gone."""
    pipeline(
        place,
        """
        [stage.a]
        run = "cat $PIPE_KEEP/step 2>/dev/null; echo 1 >> $PIPE_KEEP/step; test $(wc -l < $PIPE_KEEP/step) -ge 2 && wc -l < ckpt/step > {outputs.o}"
        outputs = { o = "o" }
        retries = 1
        keep = "ckpt"
        """,
    )
    repo.pipe("build")
    assert repo.read("o").strip() == "2"
    assert not list((repo.pipe_dir / "keep").glob("*/*"))


def test_what_it_leaves_running_is_killed(repo, place, pipeline):
    pipeline(place, '[stage.a]\nrun = "sleep 300 & echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    began = time.monotonic()
    repo.pipe("build")
    assert time.monotonic() - began < 120
    assert repo.read("o") == "1\n"


def test_ctrl_c(repo, place, pipeline):
    """Children end, the run is cancelled, nothing is recorded, nothing stays."""
    pipeline(
        place,
        """
        [stage.a]
        run = "echo begun; sleep 300; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    process = repo.start("build")
    for line in process.stdout:
        if "begun" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not repo.exists("o")
    assert repo.pipe("runs", "--json").json()["runs"][0]["status"] == "cancelled"
    if place.is_far:
        assert place.docker("ps", "-aq", "--filter", f"label=pipesmith.clone={clone_of(repo)}") == ""


def clone_of(repo) -> str:
    from pipesmith.executors.docker import clone_name

    return clone_name(str(repo.path / ".git"), ".")


def test_cancel_of_a_detached_build(repo, place, pipeline):
    pipeline(place, '[stage.a]\nrun = "echo begun; sleep 300"\noutputs = { o = "o" }\n')
    run = repo.pipe("build", "--detach", "--json").json()["run"]
    following = repo.start("logs", run, "a", "-f")
    seen_by(following, "begun")
    repo.pipe("cancel", run)
    following.communicate(timeout=60)
    assert repo.pipe("wait", run, check=False).returncode == 130
    assert repo.pipe("show", run, "--json").json()["status"] == "cancelled"
    if place.is_far:
        assert place.docker("ps", "-aq", "--filter", f"label=pipesmith.clone={clone_of(repo)}") == ""


def test_kill_9_of_pipe(repo, place, pipeline):
    """What was begun is not lost: here it ends with pipe and runs anew, far away it goes on and is taken up."""
    pipeline(
        place,
        """
        [stage.a]
        run = "echo begun; test -e $HOME/go-on || sleep 5; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    process = repo.start("build", "-v")
    seen_by(process, "begun")
    process.kill()
    process.communicate()
    assert not repo.exists("o")
    (repo.home / "go-on").touch()
    result = repo.pipe("build", "--json")
    assert result.stages() == {"a": "ran"} and repo.read("o") == "1\n"
    assert ("goes on in a container" in result.stderr) == place.is_far
    assert logs(repo, "a").split() == ["begun"]


def test_stages_side_by_side(repo, place, pipeline):
    """Each sees the other at work: neither ends before both have begun."""
    pipeline(
        place,
        """
        [stage.s]
        run = "echo begun; sleep 300; echo {matrix.n} > {outputs.o}"
        matrix = { n = [1, 2] }
        outputs = { o = "o/{matrix.n}" }
        """,
    )
    process = repo.start("build", "-j2", "-v")
    begun = 0
    while begun < 2:
        begun += "begun" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_resources_are_kept(repo, place, pipeline):
    """Two stages that ask for all of the CPUs never run at once, whatever -j."""
    pipeline(place, "")
    (state,) = repo.pipe("compute", "status", "where", "--json").json()["computes"]
    pipeline(
        place,
        """
        [stage.s]
        run = "cat /proc/uptime; sleep 0.5; cat /proc/uptime; echo {matrix.n} {resources.cpus} > {outputs.o}"
        matrix = { n = [1, 2] }
        outputs = { o = "o/{matrix.n}" }
        resources = { cpus = CPUS }
        """.replace("CPUS", f"{state['cpus']['total']:g}"),
    )
    repo.pipe("build", "-j2")
    spans = sorted([float(line.split()[0]) for line in logs(repo, f"s@{n}").splitlines()] for n in (1, 2))
    assert spans[0][1] <= spans[1][0]


def test_mutex(repo, place, pipeline):
    pipeline(
        place,
        """
        [stage.s]
        run = "cat /proc/uptime; sleep 0.5; cat /proc/uptime; echo {matrix.n} > {outputs.o}"
        matrix = { n = [1, 2, 3] }
        outputs = { o = "o/{matrix.n}" }
        mutex = ["db"]
        """,
    )
    repo.pipe("build", "-j3")
    spans = sorted([float(line.split()[0]) for line in logs(repo, f"s@{n}").splitlines()] for n in (1, 2, 3))
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    assert [repo.read(f"o/{n}").strip() for n in (1, 2, 3)] == ["1", "2", "3"]


def test_gpus_one_stage_at_a_time(repo, gpu_place, pipeline):
    """Each stage sees the GPUs that it asked for, and no two of them the same one at the same time; others see none."""
    pipeline(
        gpu_place,
        """
        [stage.s]
        run = "cat /proc/uptime; echo ${{NVIDIA_VISIBLE_DEVICES:-$CUDA_VISIBLE_DEVICES}}; sleep 0.3; cat /proc/uptime; echo {matrix.n} > {outputs.o}"
        matrix = { n = [1, 2, 3, 4] }
        outputs = { o = "o/{matrix.n}" }
        resources = { gpus = 1 }
        [stage.both]
        run = "echo $CUDA_VISIBLE_DEVICES > {outputs.o}"
        outputs = { o = "both" }
        resources = { gpus = 2 }
        [stage.none]
        run = "echo ${{NVIDIA_VISIBLE_DEVICES-unset}} =$CUDA_VISIBLE_DEVICES= > {outputs.o}"
        outputs = { o = "none" }
        """,
    )
    repo.pipe("build", "-j6", env={"CUDA_VISIBLE_DEVICES": "0,1"})
    spans: dict[str, list[tuple[float, float]]] = {}
    for n in (1, 2, 3, 4):
        began, gpu, ended = logs(repo, f"s@{n}").splitlines()
        spans.setdefault(gpu, []).append((float(began.split()[0]), float(ended.split()[0])))
    assert set(spans) <= {"0", "1"}
    for each in spans.values():
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(sorted(each)))
    assert repo.read("both") == "0,1\n"
    assert repo.read("none") == "unset ==\n"
    stages = {each["name"]: each for each in repo.pipe("show", "latest", "--json").json()["stages"]}
    assert stages["both"]["gpus"] == ["0", "1"] and stages["both"]["gpu_s"] > 0 and stages["none"]["gpus"] == []


def test_more_than_there_is(repo, place, pipeline):
    """Asking for more than the compute has ends with exit 2 before anything runs."""
    pipeline(
        place,
        f"""
        [stage.first]
        run = "{repo.note("first")}; echo 1 > {{outputs.o}}"
        outputs = {{ o = "first" }}
        [stage.a]
        run = "echo 1 > {{outputs.o}}"
        outputs = {{ o = "o" }}
        resources = {{ cpus = 4000, memory = "900T", gpus = 7 }}
        """,
    )
    result = repo.pipe("build", check=False)
    assert result.returncode == 2
    for word in ("4000 CPUs", "900T", "7 GPUs"):
        assert word in result.stderr
    assert not repo.exists("first")


def test_nothing_is_left_behind(repo, place, pipeline):
    pipeline(
        place,
        """
        [stage.good]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "good" }
        [stage.bad]
        run = "exit 1"
        outputs = { o = "bad" }
        """,
    )
    repo.pipe("build", "-k", check=False)
    assert [name for name in os.listdir(repo.pipe_dir / "tmp") if name not in ("failed", "places")] == []
    assert os.listdir(repo.pipe_dir / "tmp" / "failed") == ["bad"]
    if place.is_far:
        assert place.docker("ps", "-aq", "--filter", f"label=pipesmith.clone={clone_of(repo)}") == ""


FAILING = """
    [stage.a]
    source = "src"
    run = "cat src/code.txt data/x.txt; mkdir deep; echo got this far > deep/note; echo half > {outputs.o}; CODE"
    inputs = { d = "data" }
    outputs = { o = "out/o", more = "more" }
    retries = 1
"""


@pytest.mark.parametrize("code", ["exit 3", "exit 0"])
def test_the_sandbox_of_a_failed_stage_is_kept(repo, place, pipeline, code):
    """Its source, what it made and where it stood are there to be looked at until the next try."""
    repo.write("src/code.txt", "code\n")
    repo.write("data/x.txt", "x\n")
    pipeline(place, FAILING.replace("CODE", code))
    result = repo.pipe("build", "--json", check=False)
    assert result.returncode == 1
    kept = repo.pipe_dir / "tmp" / "failed" / "a"
    (sandbox,) = [path for path in kept.iterdir() if (path / "src").exists()]
    assert (sandbox / "src" / "code.txt").read_text() == "code\n"
    assert (sandbox / "deep" / "note").read_text() == "got this far\n"
    assert (sandbox / "out" / "o").read_text() == "half\n"
    assert not repo.exists("out/o")
    pipeline(place, FAILING.replace("CODE", "echo 1 > more"))
    repo.pipe("build")
    assert not kept.exists()


def test_a_shell_where_the_stage_runs(repo, place, pipeline):
    """Its inputs, variables and `keep` folder are there; input, both streams and the exit code go through."""
    repo.write("src/code.txt", "code\n")
    repo.write("data/x.txt", "x\n")
    pipeline(
        place,
        """
        [stage.a]
        source = "src"
        run = "echo kept > $PIPE_KEEP/note; exit 1"
        inputs = { d = "data" }
        outputs = { o = "o" }
        keep = "ckpt"
        """,
    )
    repo.pipe("build", check=False)
    command = (
        "cat src/code.txt data/x.txt ckpt/note; cat; echo $PIPE_STAGE >&2; echo mended > ckpt/note; test -e o || exit 4"
    )
    done = repo.pipe("shell", "a", "--", "sh", "-c", command, input="typed\n" * 20_000, check=False)
    assert done.returncode == 4
    assert done.stdout == "code\nx\nkept\n" + "typed\n" * 20_000 and "a\n" in done.stderr
    assert repo.pipe("shell", "a", "--", "cat", "ckpt/note").stdout == "mended\n"
    if place.is_far:
        assert place.docker("ps", "-aq", "--filter", f"label=pipesmith.clone={clone_of(repo)}") == ""


def test_a_terminal_where_the_stage_runs(repo, place, pipeline):
    """Keys go there, Ctrl-C as well, and it knows how large it is."""
    pipeline(place, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipesmith", "shell", "a"],
        cwd=repo.path,
        env={**repo.env, "SHELL": "/bin/sh", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    try:
        said = typed(ours, "echo is $((40 + 2)) here", "is 42 here")
        said += typed(ours, "stty size", "33 101")
        code = "import signal; signal.signal(2, lambda *_: exit(9)); print(chr(33) * 3, flush=True); signal.pause()"
        said += typed(ours, f"python -c '{code}' || echo is $?", "!!!")
        said += typed(ours, "\x03", "is 9", end="")
        typed(ours, "echo and $((80 + 4)) here", "and 84 here")
        os.write(ours, b"exit 7\n")
        assert process.wait(timeout=60) == 7, said
    finally:
        process.kill()
        os.close(ours)


def typed(terminal: int, keys: str, answer: str, end: str = "\n") -> str:
    """Type something, and return what is said up to an answer."""
    os.write(terminal, f"{keys}{end}".encode())
    said = ""
    while answer not in said:
        if not select.select([terminal], [], [], 60)[0]:
            pytest.fail(f"`{answer}` was never said: {said!r}")
        said += os.read(terminal, 4096).decode("utf-8", "replace")
    return said


def test_what_it_logs_is_live(repo, place, pipeline):
    """Numbers and images that a stage logs are here while it runs."""
    repo.write(
        "src/a.py",
        """
        import pathlib, sys, time
        from pipesmith.sdk import Run
        run = Run.get_context()
        pathlib.Path("drawn.png").write_bytes(b"drawn")
        run.log_image("drawn.png", step=1)
        run.log("loss", 0.5, step=1)
        print("logged", flush=True)
        time.sleep(300)
        """,
    )
    pipeline(place, '[stage.a]\nsource = "src"\nrun = ["python", "src/a.py"]\noutputs = { o = "o" }\n')
    process = repo.start("build")
    for line in process.stdout:
        if "logged" in line:
            break
    run = repo.pipe("runs", "--json").json()["runs"][0]["id"]
    following = repo.start("logs", run, "a", "-f")
    for line in following.stdout:
        if "loss = 0.5 (step 1)" in line:
            break
    until = time.monotonic() + 60
    while not [*(repo.pipe_dir / "logs" / run).glob("a.log.files/*.png")] and time.monotonic() < until:
        time.sleep(0.05)
    (image,) = (repo.pipe_dir / "logs" / run).glob("a.log.files/*.png")
    assert image.read_bytes() == b"drawn" and process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    for each in (process, following):
        each.communicate(timeout=60)
    lines = (repo.pipe_dir / "logs" / run / "a.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["drawn.png", "loss"]


def test_the_record(repo, place, pipeline):
    """Status, times, CPU seconds, peak memory, compute and log of each stage."""
    pipeline(
        place,
        """
        [stage.a]
        run = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; sleep 1.5; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    repo.pipe("build")
    stage = json.loads(repo.pipe("show", "latest", "--json").stdout)["stages"][0]
    assert stage["status"] == "ran" and stage["compute"] == "where" and stage["exit_code"] == 0
    assert stage["cpu_s"] > 0.1 and stage["peak_bytes"] > 100_000
    assert stage["end"] - stage["start"] > 1.4


def test_what_a_stage_uses(repo, place, pipeline):
    """Peak memory is that of the whole stage, not of its end. A daemon is asked now and then: it holds the memory for long enough."""
    repo.write(
        "src/a.py", "import time\ntime.sleep(0.2)\nheld = b'1' * 80_000_000\ntime.sleep(4)\ndel held\nopen('o', 'w')\n"
    )
    pipeline(place, '[stage.a]\nsource = "src"\nrun = ["python", "src/a.py"]\noutputs = { o = "o" }\n')
    repo.pipe("build")
    (stage,) = repo.pipe("show", "latest", "--json").json()["stages"]
    assert stage["peak_bytes"] > 80_000_000
