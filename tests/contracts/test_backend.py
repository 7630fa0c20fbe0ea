"""What every backend does, over the process backend in its plain and its isolated mode."""

import json
import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from nevermined_fl.backends import bubblewrap
from nevermined_fl.backends.process import ProcessBackend
from nevermined_fl.errors import BackendError
from nevermined_fl.ports import JobSpec

isolated = pytest.mark.bubblewrap
KILLED = 137


@pytest.fixture(params=["process-plain", pytest.param("process-bwrap", marks=isolated)])
def backend(request, tmp_path):
    backend = make_backend(tmp_path, request.param)
    yield backend
    backend.close()


@pytest.fixture
def bwrapped(tmp_path):
    backend = make_backend(tmp_path, "process-bwrap")
    yield backend
    backend.close()


def make_backend(tmp_path, kind):
    if kind == "process-plain":
        return ProcessBackend(tmp_path / "jobs", bwrap="", allow_no_isolation=True)
    return ProcessBackend(tmp_path / "jobs", hide=(tmp_path,))


def make_spec(tmp_path, code, name="one", **more):
    """A job that runs ``code``; ``told`` in it appends a line to said.txt, which the test reads."""
    folder = tmp_path / "jobs" / name / "work"
    folder.mkdir(parents=True)
    head = "import os, socket, sys, time\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n"
    (folder / "probe.py").write_text(head + textwrap.dedent(code))
    environment = {"PYTHONPATH": str(folder)} | more.pop("environment", {})
    return JobSpec(name, "probe", folder, environment=environment, **more)


def wait_over(backend, handle, seconds=20):
    """The state in which it ended; waits on the runner and polls nothing."""
    assert backend._runs[handle].wait(seconds)
    return backend.state(handle)


def read_line(fifo, seconds=20):
    """One line that the job wrote to a named pipe."""
    fd = os.open(fifo, os.O_RDWR)
    try:
        assert select.select([fd], [], [], seconds)[0], "the job wrote nothing"
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def is_alive(marker):
    """Whether any process has the marker in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker in path.read_bytes().decode(errors="replace"):
                return True
        except OSError:
            continue
    return False


def test_a_job_runs_in_its_folder_and_its_output_is_kept(backend, tmp_path):
    spec = make_spec(
        tmp_path,
        """
        (folder / "outputs.txt").write_text("made")
        print("spoken", Path.cwd() == folder.resolve())
        print("complained", file=sys.stderr)
        """,
    )
    handle = backend.submit(spec)
    state = wait_over(backend, handle)
    assert (state.status, state.exit_code) == ("Succeeded", 0)
    assert state.started <= state.finished
    assert state.isolation == backend.isolation
    assert (spec.folder / "outputs.txt").read_text() == "made"
    assert b"spoken True" in backend.logs(handle)
    assert b"complained" in backend.logs(handle)
    assert (tmp_path / "jobs" / "one" / "raw.log").stat().st_mode & 0o077 == 0


def test_the_exit_code_of_a_failed_job_is_told(backend, tmp_path):
    handle = backend.submit(make_spec(tmp_path, "sys.exit(4)"))
    state = wait_over(backend, handle)
    assert (state.status, state.exit_code, state.is_over()) == ("Failed", 4, True)


def test_a_running_job_says_so_and_cannot_be_submitted_twice(backend, tmp_path):
    spec = make_spec(tmp_path, "time.sleep(60)")
    handle = backend.submit(spec)
    assert backend.state(handle).status == "Running"
    with pytest.raises(BackendError, match="is running"):
        backend.submit(spec)


def test_a_job_that_is_over_may_be_started_again(backend, tmp_path):
    spec = make_spec(tmp_path, "sys.exit(0 if (folder / 'seen').exists() else (folder / 'seen').touch() or 3)")
    assert wait_over(backend, backend.submit(spec)).exit_code == 3
    assert wait_over(backend, backend.submit(spec)).exit_code == 0


def test_stop_kills_grandchildren_that_left_their_session(backend, tmp_path):
    marker = f"marker-{os.getpid()}-{tmp_path.name}"
    os.mkfifo(tmp_path / "up")
    spec = make_spec(
        tmp_path,
        f"""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:  # its parent ends: an orphan
                fd = os.open(folder / "up", os.O_WRONLY)
                os.write(fd, b"up\\n")
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "{marker}"])
            os._exit(0)
        time.sleep(600)
        """,
    )
    os.mkfifo(spec.folder / "up")
    handle = backend.submit(spec)
    assert read_line(spec.folder / "up") == "up"
    backend.stop(handle)
    assert backend.state(handle).status == "Failed"
    assert not is_alive(marker)
    backend.stop(handle)  # again is no error


def test_what_a_job_leaves_behind_dies_when_it_ends(backend, tmp_path):
    marker = f"left-{os.getpid()}-{tmp_path.name}"
    command = f"[sys.executable, '-c', 'import time; time.sleep(600)', '{marker}']"
    spec = make_spec(tmp_path, f"import subprocess\nsubprocess.Popen({command}, start_new_session=True)")
    assert wait_over(backend, backend.submit(spec)).exit_code == 0
    assert not is_alive(marker)


LAUNCHER = """
import sys, time
from pathlib import Path
from nevermined_fl.backends.process import ProcessBackend
from nevermined_fl.ports import JobSpec
home, folder, patience = *map(Path, sys.argv[1:3]), float(sys.argv[3])
backend = ProcessBackend(home, bwrap='', allow_no_isolation=True, orphan_seconds=patience)
backend.submit(JobSpec('one', 'probe', folder, environment={'PYTHONPATH': str(folder)}))
print(backend._runs['one'].popen.pid, flush=True)
time.sleep(600)
"""


def start_and_die(tmp_path, spec, *, patience):
    """Start a job from another process and kill that once the job said so; a pidfd of the runner."""
    line = [sys.executable, "-c", LAUNCHER, str(tmp_path / "jobs"), str(spec.folder), str(patience)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        runner = os.pidfd_open(int(process.stdout.readline()))
        assert read_line(spec.folder / "up") == "up"
        process.kill()
    return runner


def test_a_job_that_no_launcher_takes_over_dies(tmp_path):
    """A launcher that is killed cannot clean up: the end of the lifeline does."""
    marker = f"orphan-{os.getpid()}-{tmp_path.name}"
    spec = make_spec(
        tmp_path,
        f"""
        if os.fork() == 0:
            os.setsid()
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "{marker}"])
        (folder / "up").write_text("up")
        time.sleep(600)
        """,
    )
    os.mkfifo(spec.folder / "up")
    runner = start_and_die(tmp_path, spec, patience=0.0)
    assert select.select([runner], [], [], 20)[0], "the runner outlived the launcher"
    os.close(runner)
    assert not is_alive(marker)


ANSWERING = """
(folder / "up").write_text("up")
answer = (folder / "go").open().read()
print("heard", answer)
sys.exit(int(answer))
"""


def test_a_job_whose_launcher_was_killed_is_taken_over_by_the_next(tmp_path):
    spec = make_spec(tmp_path, ANSWERING)
    for name in ("up", "go"):
        os.mkfifo(spec.folder / name)
    runner = start_and_die(tmp_path, spec, patience=60.0)
    backend = make_backend(tmp_path, "process-plain")
    handle = backend.submit(spec)
    state = backend.state(handle)
    assert (state.status, state.finished) == ("Running", None)
    with pytest.raises(BackendError, match="is running"):
        backend.submit(spec)
    (spec.folder / "go").write_text("7")
    assert wait_over(backend, handle).exit_code == 7
    assert select.select([runner], [], [], 20)[0]
    os.close(runner)
    # Once: it was not started a second time, and the next order is for a new attempt.
    assert backend.logs(handle) == b"heard 7\n"
    (spec.folder / "probe.py").write_text("import sys; sys.exit(5)")
    assert wait_over(backend, backend.submit(spec)).exit_code == 5


def test_a_job_that_ended_while_no_launcher_was_there_is_not_run_again(tmp_path):
    spec = make_spec(tmp_path, ANSWERING)
    for name in ("up", "go"):
        os.mkfifo(spec.folder / name)
    runner = start_and_die(tmp_path, spec, patience=60.0)
    (spec.folder / "go").write_text("7")
    assert select.select([runner], [], [], 20)[0]
    os.close(runner)
    backend = make_backend(tmp_path, "process-plain")
    state = backend.state(backend.submit(spec))
    assert (state.status, state.exit_code) == ("Failed", 7)
    assert backend.logs("one") == b"heard 7\n"


def test_a_job_that_was_taken_over_can_be_stopped(tmp_path):
    spec = make_spec(tmp_path, ANSWERING)
    for name in ("up", "go"):
        os.mkfifo(spec.folder / name)
    runner = start_and_die(tmp_path, spec, patience=60.0)
    backend = make_backend(tmp_path, "process-plain")
    handle = backend.submit(spec)
    backend.stop(handle)
    assert backend.state(handle).exit_code == KILLED
    assert select.select([runner], [], [], 20)[0]
    os.close(runner)


POLITE = """
import signal
def farewell(*_):
    print("goodbye", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, farewell)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, lambda *_: print("the child was told", flush=True))
    time.sleep(600)
(folder / "up").write_text("up")
time.sleep(600)
"""


def test_a_job_that_is_given_time_says_goodbye(backend, tmp_path):
    """Its own process is told, and nobody else: what it started is its own to end."""
    spec = make_spec(tmp_path, POLITE)
    os.mkfifo(spec.folder / "up")
    handle = backend.submit(spec)
    assert read_line(spec.folder / "up") == "up"
    backend.stop(handle, grace=20.0)
    assert backend.state(handle).exit_code == 3
    assert backend.logs(handle) == b"goodbye\n"


def test_a_job_that_does_not_listen_is_killed(backend, tmp_path):
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n(folder / 'up').write_text('up')\n"
    spec = make_spec(tmp_path, deaf + "time.sleep(600)")
    os.mkfifo(spec.folder / "up")
    handle = backend.submit(spec)
    assert read_line(spec.folder / "up") == "up"
    backend.stop(handle, grace=0.05)
    assert backend.state(handle).exit_code == KILLED


def test_the_environment_is_clean(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("NEVERMINED_FL_PASSWORD", "hunter2")
    data = tmp_path / "data"
    data.mkdir()
    spec = make_spec(
        tmp_path,
        "import json; (folder / 'environment.json').write_text(json.dumps(dict(os.environ)))",
        environment={"NEVERMINED_OUTPUTS_PATH": str(tmp_path / "jobs/one/work/outputs"), "EXTRA": "1"},
        read_only={"NEVERMINED_INPUTS_PATH": data},
    )
    wait_over(backend, backend.submit(spec))
    seen = json.loads((spec.folder / "environment.json").read_text())
    assert "hunter2" not in seen.values()
    ours = {
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "PYTHONSAFEPATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
    }
    assert set(seen) - {"LC_CTYPE", "PWD"} == ours | {"EXTRA", "NEVERMINED_INPUTS_PATH", "NEVERMINED_OUTPUTS_PATH"}
    assert Path(seen["NEVERMINED_OUTPUTS_PATH"]).name == "outputs"
    assert Path(seen["NEVERMINED_OUTPUTS_PATH"]).parent == Path(seen["HOME"])


def test_data_is_found_under_its_name(backend, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("a,b\n")
    spec = make_spec(
        tmp_path,
        "print(Path(os.environ['NEVERMINED_INPUTS_PATH'], 'rows.csv').read_text())",
        read_only={"NEVERMINED_INPUTS_PATH": tmp_path / "data"},
    )
    handle = backend.submit(spec)
    assert wait_over(backend, handle).exit_code == 0
    assert b"a,b" in backend.logs(handle)


def test_raw_output_is_bounded(backend, tmp_path):
    block = "x" * 1023
    code = f"for _ in range(20 * 1024): print({block!r})\nprint('the end')"
    handle = backend.submit(make_spec(tmp_path, code))
    assert wait_over(backend, handle).exit_code == 0
    kept = sum(path.stat().st_size for path in (tmp_path / "jobs" / "one").glob("raw.log*"))
    assert kept <= 16 * 1024**2
    assert backend.logs(handle).endswith(b"the end\n")
    assert len(backend.logs(handle)) == 1024**2


@pytest.mark.parametrize(
    "take",
    [
        "kept = b'x' * (200 * 1024**2)",
        "import mmap; kept = mmap.mmap(-1, 200 * 1024**2)\nfor _ in range(200): kept.write(bytes(1024**2))",
    ],
    ids=["private", "shared"],
)
def test_more_memory_than_allowed_ends_the_job(backend, tmp_path, take):
    spec = make_spec(tmp_path, f"{take}\ntime.sleep(60)", memory=100 * 1024**2)
    handle = backend.submit(spec)
    assert wait_over(backend, handle).exit_code == KILLED
    assert b"bytes of memory" in backend.logs(handle)


def test_more_processes_than_allowed_end_the_job(backend, tmp_path):
    spec = make_spec(
        tmp_path, "for _ in range(30):\n    if os.fork() == 0: time.sleep(60)\ntime.sleep(60)", processes=12
    )
    handle = backend.submit(spec)
    assert wait_over(backend, handle).status == "Failed"
    assert b"processes" in backend.logs(handle) or b"BlockingIOError" in backend.logs(handle)


def test_more_cpu_time_than_allowed_ends_the_job(backend, tmp_path):
    handle = backend.submit(make_spec(tmp_path, "while True: pass", cpu_seconds=1))
    assert wait_over(backend, handle).status == "Failed"


@pytest.mark.parametrize(
    "change", [{"entrypoint": "os; evil"}, {"id": "../out"}, {"read_only": {"X": Path("/nowhere")}}]
)
def test_a_job_that_makes_no_sense_is_refused(backend, tmp_path, change):
    spec = make_spec(tmp_path, "pass")
    fields = {"id": spec.id, "entrypoint": spec.entrypoint, "folder": spec.folder} | change
    with pytest.raises(BackendError):
        backend.submit(JobSpec(**fields))


def test_a_handle_of_nobody_is_refused(backend):
    with pytest.raises(BackendError, match="started no job"):
        backend.state("never")


def test_without_isolation_it_refuses_unless_told(tmp_path):
    with pytest.raises(BackendError, match="no isolation") as caught:
        ProcessBackend(tmp_path, bwrap="")
    assert "allow_no_isolation" in caught.value.hint
    broken = ProcessBackend(tmp_path, bwrap="/bin/false", allow_no_isolation=True)
    assert broken.isolation == "none"


# --- what only isolation can promise -------------------------------------------------------------------------------


@isolated
def test_read_only_data_cannot_be_written(bwrapped, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.csv").write_text("kept")
    spec = make_spec(
        tmp_path,
        """
        inputs = Path(os.environ["NEVERMINED_INPUTS_PATH"])
        for attempt in ((inputs / "rows.csv").write_text, (inputs / "new").write_text):
            try:
                attempt("spoilt")
            except OSError as error:
                print(error.errno)
        (inputs / "rows.csv").chmod(0o777)
        """,
        read_only={"NEVERMINED_INPUTS_PATH": data},
    )
    handle = bwrapped.submit(spec)
    wait_over(bwrapped, handle)
    assert bwrapped.logs(handle).count(b"30\n") == 2  # EROFS
    assert (data / "rows.csv").read_text() == "kept"
    assert sorted(path.name for path in data.iterdir()) == ["rows.csv"]


@isolated
def test_other_jobs_and_the_providers_key_are_invisible(bwrapped, tmp_path):
    other = make_spec(tmp_path, "pass", name="two")
    (tmp_path / "key.json").write_text("secret")
    looked = [
        str(other.folder),
        str(tmp_path / "key.json"),
        str(Path.home() / ".ssh"),
        "/etc/passwd",
        str(tmp_path / "jobs"),
    ]
    handle = bwrapped.submit(
        make_spec(tmp_path, f"print([p for p in {looked!r} if os.path.exists(p)], sorted(os.listdir('/')))")
    )
    wait_over(bwrapped, handle)
    assert bwrapped.logs(handle).startswith(b"[] ")
    assert b"'home'" not in bwrapped.logs(handle)


@isolated
def test_a_home_below_the_python_prefix_is_still_hidden(tmp_path, monkeypatch):
    secret = tmp_path / "venv" / "home"
    secret.mkdir(parents=True)
    (secret / "key.json").write_text("secret")
    monkeypatch.setattr(bubblewrap, "_prefixes", lambda: [Path(sys.prefix), Path(sys.base_prefix), tmp_path / "venv"])
    backend = ProcessBackend(tmp_path / "jobs", hide=(secret,))
    handle = backend.submit(make_spec(tmp_path, f"print(os.listdir({str(secret)!r}))"))
    wait_over(backend, handle)
    assert backend.logs(handle) == b"[]\n"


@isolated
def test_a_participant_has_no_network_but_its_socket(bwrapped, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as relay:
        spec = make_spec(
            tmp_path,
            f"""
            try:
                socket.create_connection(("127.0.0.1", {tcp.getsockname()[1]}), 2)
                print("reached the host")
            except OSError:
                print("no network")
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(folder / "relay.sock"))
            print(link.recv(16))
            """,
            sockets=(tmp_path / "jobs/one/work/relay.sock",),
        )
        bind_in(spec.folder, relay)
        answer = threading.Thread(target=greet, args=(relay,), daemon=True)
        answer.start()
        handle = bwrapped.submit(spec)
        wait_over(bwrapped, handle)
        answer.join(20)
    assert bwrapped.logs(handle) == b"no network\nb'hello'\n"


@isolated
def test_a_coordinator_keeps_the_network(bwrapped, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        spec = make_spec(
            tmp_path, f"socket.create_connection(('127.0.0.1', {port}), 2); print('reached')", listen=("127.0.0.1", 1)
        )
        handle = bwrapped.submit(spec)
        wait_over(bwrapped, handle)
    assert bwrapped.logs(handle) == b"reached\n"


@isolated
def test_a_job_may_nest_another_sandbox(bwrapped, tmp_path):
    """The participant shuts the buyer's code in once more: no keys, no relay."""
    inner = (
        "['/usr/bin/bwrap', '--unshare-all', '--ro-bind', '/usr', '/usr', '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64',"
        " '/lib64', '--symlink', 'usr/bin', '/bin', '--ro-bind', '/proc', '/proc', '--dev', '/dev', '--bind', str(folder / 'scratch'),"
        " '/scratch', '/bin/sh', '-c', 'echo inner; ls /']"
    )
    spec = make_spec(
        tmp_path,
        f"import subprocess\n(folder / 'scratch').mkdir()\nprint(subprocess.run({inner}, capture_output=True))",
    )
    handle = bwrapped.submit(spec)
    wait_over(bwrapped, handle)
    assert b"returncode=0" in bwrapped.logs(handle)
    assert b"job" not in bwrapped.logs(handle).split(b"stdout=")[1]


@isolated
def test_our_own_packages_and_numpy_are_there(bwrapped, tmp_path):
    handle = bwrapped.submit(
        make_spec(tmp_path, "import nevermined_fl.messages, numpy, participant_image; print('imported')")
    )
    wait_over(bwrapped, handle)
    assert bwrapped.logs(handle) == b"imported\n"


def greet(server):
    with server.accept()[0] as connection:
        connection.sendall(b"hello")


def bind_in(folder, server):
    """Bind ``relay.sock`` in a folder whose path may be too long for a socket address."""
    fd = os.open(folder, os.O_PATH)
    try:
        server.bind(f"/proc/self/fd/{fd}/relay.sock")
    finally:
        os.close(fd)
    server.listen()


@isolated
def test_the_buyer_s_code_can_be_shut_in_once_more(bwrapped, tmp_path):
    """As the participant does it: the inner sandbox sees the data and none of the job's secrets."""
    spec = make_spec(
        tmp_path,
        """
        import subprocess
        from nevermined_fl.trainers import sandbox
        for name in ("scratch", "inputs"):
            (folder / name).mkdir()
        (folder / "job.key").write_text("secret")
        look = [sys.executable, "-c", "import os; print(sorted(os.listdir('" + str(folder) + "')))"]
        command = sandbox.wrap(look, read_only=[folder / "inputs"], scratch=folder / "scratch")
        print(sandbox.isolation(), subprocess.run(command, capture_output=True, text=True).stdout)
        """,
    )
    handle = bwrapped.submit(spec)
    wait_over(bwrapped, handle)
    assert bwrapped.logs(handle).startswith(b"bubblewrap ['inputs', 'scratch']")
