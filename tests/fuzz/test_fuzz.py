"""Each libFuzzer target: its corpus, and SECONDS (20) more of new input.  FUZZ_SECONDS=300 for a long run;
what is found is left in build-fuzz/found/."""
import os
import re
import shutil
import subprocess

import pytest
from kit import BUILD, ROOT

SECONDS = int(os.environ.get("FUZZ_SECONDS", "20"))
DIR = ROOT / "build-fuzz"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
TARGETS = sorted(d.name for d in CORPUS.iterdir())
# Two at a time: the machine has two cores at least.
PAIRS = [TARGETS[i:i + 2] for i in range(0, len(TARGETS), 2)]

pytestmark = pytest.mark.skipif("asan" in BUILD.name or "tsan" in BUILD.name,
                                reason="the targets have sanitizers of their own: run once, with make test")


@pytest.fixture(scope="module")
def built():
    if not (DIR / "build.ninja").exists():
        subprocess.run(["meson", "setup", DIR, "-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"],
                       cwd=ROOT, env=dict(os.environ, CC="clang"), check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", DIR], check=True, stdout=subprocess.DEVNULL)


def start(name):
    work = DIR / "corpus" / name  # what is new stays here between runs
    work.mkdir(parents=True, exist_ok=True)
    (DIR / "found").mkdir(exist_ok=True)
    # No limit of its size: what the tests' own process had before it became the fuzzer counts there.
    log = open(DIR / "found" / f"{name}.txt", "w+b")  # a pipe that is not read yet would stop it
    p = subprocess.Popen([DIR / "tests" / f"fuzz_{name}", f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=0",
                          "-malloc_limit_mb=2000",
                          "-print_funcs=0",  # it would start a program, and keep a pipe to it
                          "-max_len=65536" if name.startswith("map_") else "-max_len=8192",
                          f"-artifact_prefix={DIR}/found/{name}-", "-print_final_stats=1", work, CORPUS / name],
                         stdout=log, stderr=subprocess.STDOUT)
    return name, p, log


@pytest.mark.parametrize("pair", PAIRS, ids=["+".join(p) for p in PAIRS])
def test_fuzz(built, pair):
    for name, p, log in [start(name) for name in pair]:
        p.wait(SECONDS * 10 + 120)
        log.seek(0)
        out = log.read().decode("utf-8", "replace")
        log.close()
        assert p.returncode == 0, f"{name}: {out[-4000:]}"
        runs = int(re.search(r"stat::number_of_executed_units:\s+(\d+)", out).group(1))
        cover = re.findall(r"cov: (\d+)", out)[-1]
        print(f"{name}: {runs} executions, {cover} edges")
        assert runs > len(list((CORPUS / name).iterdir()))
    if SECONDS <= 20:
        shutil.rmtree(DIR / "corpus", ignore_errors=True)  # every run starts from what is committed
