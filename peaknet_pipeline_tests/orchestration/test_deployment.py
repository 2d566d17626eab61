"""Deployment files: valid, closed by default, without secrets."""

import re
import shutil
import subprocess

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from peaknet_pipeline.commands.deploy import deploy
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.orchestration.deployment import KINDS, deployment_text, write_deployment
from peaknet_pipeline.orchestration.jobs import INGEST


@pytest.fixture(params=sorted(KINDS))
def written(request, tmp_path):
    """A deployment of each kind."""
    out = tmp_path / "home"
    paths = write_deployment(out, kind=request.param, data=tmp_path / "data", user="root")
    assert all(path.is_file() for path in paths)
    return out


def test_no_placeholder_and_no_secret_is_left_in_any_file(written):
    for path in written.iterdir():
        text = path.read_text()
        assert not re.findall(r"@[A-Z]+@", text), path
        assert not re.search(r"password\s*[=:]\s*\S|postgresql\S*://[^u]", text, re.IGNORECASE), path
    assert (written / "peaknet.env").stat().st_mode & 0o007 == 0
    values = dict(
        line.split("=", 1) for line in (written / "peaknet.env").read_text().splitlines() if "=" in line
    )
    assert values.pop("#DAGSTER_PG_URL") == ""
    assert all(not re.search(r"URL|TOKEN|SECRET", name) for name in values)


def test_nothing_listens_beyond_loopback(written):
    for path in written.iterdir():
        assert "0.0.0.0" not in path.read_text()  # noqa: S104 (looked for, not listened on)
    assert "PEAKNET_CODE_HOST=127.0.0.1" in (written / "peaknet.env").read_text()
    assert " -h 127.0.0.1 " in (written / "peaknet-webserver.service").read_text()


def test_telemetry_is_off_twice(written):
    assert yaml.safe_load((written / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
    assert "DAGSTER_DISABLE_TELEMETRY=1" in (written / "peaknet.env").read_text()


def test_systemd_accepts_the_units(written):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    units = [str(path) for path in sorted(written.iterdir()) if path.suffix in (".service", ".target")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_services_cannot_write_raw_runs_or_gain_rights(written):
    for path in written.glob("*.service"):
        lines = path.read_text().splitlines()
        assert {"NoNewPrivileges=true", "ProtectSystem=strict", "CapabilityBoundingSet="} <= set(lines)
        assert f"ReadOnlyPaths={written.parent / 'data'}/raw" in lines


def test_the_database_is_made_before_anything_else_starts(written):
    """Three processes that make its tables at once fail, and the code server would go on without its code."""
    code = (written / "peaknet-code.service").read_text()
    assert code.index("ExecStartPre=") < code.index("dagster instance migrate") < code.index("ExecStart=")
    for name in ("daemon", "webserver"):
        assert (
            "After=network-online.target peaknet-code.service"
            in (written / f"peaknet-{name}.service").read_text()
        )


def test_dagster_accepts_the_machines_instance(tmp_path):
    write_deployment(tmp_path, kind="machine", data=tmp_path / "data")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_monitoring_enabled
        assert instance.run_retries_max_retries == 1
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert not instance.telemetry_enabled


def test_the_pod_is_unprivileged_and_takes_its_database_from_a_secret(tmp_path):
    write_deployment(tmp_path, kind="facility", data=tmp_path / "data")
    _, deployment = yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert {c["name"] for c in pod["containers"]} == {"code", "daemon", "webserver"}
    assert pod["initContainers"][0]["args"] == ["dagster", "instance", "migrate"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["envFrom"] == [{"secretRef": {"name": "peaknet-database"}}]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    image = (tmp_path / "Containerfile").read_text()
    assert image.index("USER 10001") < image.index("CMD")


def test_the_batch_script_is_bash_and_says_what_it_misses(tmp_path):
    write_deployment(tmp_path, kind="facility", data=tmp_path / "data")
    done = subprocess.run(
        ["bash", tmp_path / "peaknet.sbatch"], capture_output=True, text=True, env={}, check=False
    )
    assert done.returncode != 0
    assert "KEYS_FILE: a file with one partition key a line" in done.stderr


def test_the_batch_script_makes_what_the_job_makes():
    (assets,) = re.findall(r"ASSETS:-([a-z_,]+)", deployment_text("facility/peaknet.sbatch"))
    assert tuple(assets.split(",")) == INGEST


def test_changed_files_are_kept_unless_forced(tmp_path):
    arguments = ["--out", str(tmp_path), "--data", str(tmp_path / "data")]
    assert CliRunner().invoke(deploy, arguments).exit_code == 0
    assert CliRunner().invoke(deploy, arguments).exit_code == 0
    (tmp_path / "peaknet.env").write_text("DAGSTER_PG_URL=mine\n")
    again = CliRunner().invoke(deploy, arguments)
    assert isinstance(again.exception, ParameterError)
    assert "peaknet.env" in str(again.exception)
    assert (tmp_path / "peaknet.env").read_text() == "DAGSTER_PG_URL=mine\n"
    assert CliRunner().invoke(deploy, [*arguments, "--force"]).exit_code == 0
    assert "mine" not in (tmp_path / "peaknet.env").read_text()


@pytest.mark.parametrize("name", ["with blank", "quo'te", "dollar$HOME", "per%cent", "new\nline"])
def test_paths_that_a_unit_file_would_read_as_something_else_are_refused(tmp_path, name):
    with pytest.raises(ParameterError, match="unit file"):
        write_deployment(tmp_path / "home", kind="machine", data=tmp_path / name)
