"""All commands: the module that serves each, and a line about it. Modules are imported when their command runs."""

from __future__ import annotations

__all__ = ["COMMANDS", "LATER"]

COMMANDS = {
    "init": "lay out pipeline.toml, stages/ and hooks/ in a git repository",
    "build": "bring stages up to date",
    "watch": "build at every save that reaches a stage",
    "wait": "wait for a run that goes on elsewhere",
    "cancel": "end a run that goes on elsewhere",
    "status": "the state of each stage, and why",
    "why": "why a stage would run, or why it ran",
    "accept": "say that what differs does not matter",
    "what-if": "what a build would do, here or elsewhere, and for how long",
    "graph": "the stage graph",
    "runs": "recorded runs",
    "show": "one run",
    "logs": "what a stage printed",
    "diff": "what differs between two runs or revisions",
    "metrics": "the numbers of the lockfile, here and at revisions",
    "bisect": "the commit that made a number worse, or a stage fail",
    "checkout": "put locked outputs into the workspace, or elsewhere",
    "cat": "print an object of the cache",
    "push": "share run history through a git remote",
    "fetch": "bring run history from a git remote",
    "verify": "check cache and outputs against the lockfile",
    "gc": "drop what nothing needs",
    "data": "datasets: list, show, update",
    "compute": "where stages run: list, ask, warm up, give back, wait",
    "env": "environments: list, build, update, push",
    "shell": "a shell in a stage's sandbox",
    "hooks": "git hooks: a gate for pushes, outputs after a switch of branches",
    "doctor": "what this machine and repository can and can't",
    "schema": "the JSON schema of pipeline.toml",
    "completion": "shell completion",
    "lock": "mend, merge and show lockfiles",
}

# Commands of the contract that this version does not have yet.
LATER = (
    "plots",
    "pull",
    "studio",
    "publish",
    "model",
    "ci",
    "import",
    "export",
)
