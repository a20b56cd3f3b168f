from __future__ import annotations

import configparser
from pathlib import Path

from detbuild.image.network import NetworkSettings, host_network, pip_config_files


def conf(settings: NetworkSettings) -> dict[str, str]:
    """What a pip in the image reads, without what is always there."""
    parser = configparser.RawConfigParser()
    parser.read_string(settings.secrets()["pip.conf"].decode())
    always = ("disable-pip-version-check", "no-input", "progress-bar", "root-user-action")
    return {name: value for name, value in parser["global"].items() if name not in always}


def test_a_host_without_settings_lends_patience_only() -> None:
    settings = host_network({}, [], system_ca=())
    assert settings == NetworkSettings()
    assert settings.default_index_only
    assert conf(settings) == {"timeout": "60", "retries": "5"}
    assert settings.secrets().keys() == {"pip.conf", "ca.pem", "constraints.txt"}


def test_later_files_win_and_the_environment_beats_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(
        "[global]\nindex-url = https://first.example/simple\nretries = 1\n[install]\npre = true\n"
    )
    second.write_text("[global]\nindex_url = https://u:p@second.example/simple\n")
    settings = host_network(
        {"PIP_DEFAULT_TIMEOUT": "180"}, [first, second, tmp_path / "missing"], system_ca=()
    )
    assert conf(settings) == {
        "index-url": "https://u:p@second.example/simple",
        "retries": "1",
        "pre": "true",
        "timeout": "180",
    }
    assert not settings.default_index_only


def test_what_concerns_the_hosts_disk_stays_there() -> None:
    environ = {"PIP_TARGET": "/srv", "PIP_CACHE_DIR": "/x", "PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1"}
    assert host_network(environ, [], system_ca=()) == NetworkSettings()


def test_indexes_in_folders_of_the_host_are_dropped() -> None:
    environ = {
        "PIP_INDEX_URL": "file:///opt/simple",
        "PIP_EXTRA_INDEX_URL": "file:///opt/more https://extra.example/simple",
    }
    settings = host_network(environ, [], system_ca=())
    assert conf(settings)["extra-index-url"] == "https://extra.example/simple"


def test_wheel_folders_are_known_by_their_place_in_the_build(tmp_path: Path) -> None:
    environ = {
        "PIP_FIND_LINKS": f"{tmp_path} file://{tmp_path} /does/not/exist https://links.example/torch.html"
    }
    settings = host_network(environ, [], system_ca=())
    assert settings.wheel_dirs == (tmp_path, tmp_path)
    assert conf(settings)["find-links"] == "https://links.example/torch.html\n/build/wheels"


def test_certificates_come_from_the_first_variable_that_names_some(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"certificate")
    environ = {"PIP_CERT": "/does/not/exist", "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    settings = host_network(environ, [], system_ca=())
    assert conf(settings)["cert"] == "/run/secrets/ca.pem"
    assert settings.secrets()["ca.pem"] == b"certificate"
    assert host_network({}, [], system_ca=[tmp_path / "ca.pem"]).ca == b"certificate"


def test_constraints_travel_by_content(tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("numpy<2\n")
    settings = host_network({"PIP_CONSTRAINT": str(tmp_path / "limits.txt")}, [], system_ca=())
    assert conf(settings)["constraint"] == "/run/secrets/constraints.txt"
    assert settings.secrets()["constraints.txt"] == b"numpy<2\n"


def test_proxies_are_given_in_both_spellings() -> None:
    settings = host_network(
        {"https_proxy": "http://u:p@proxy.example:3128", "NO_PROXY": "localhost"}, [], system_ca=()
    )
    assert settings.proxies == {
        "HTTPS_PROXY": "http://u:p@proxy.example:3128",
        "https_proxy": "http://u:p@proxy.example:3128",
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
    }
    assert settings.warnings == ()


def test_a_proxy_on_the_loopback_address_is_warned_about() -> None:
    settings = host_network({"HTTPS_PROXY": "127.0.0.1:3128"}, [], system_ca=())
    assert settings.warnings == (
        "HTTPS_PROXY names this host's loopback address, which a build step cannot reach",
    )


def test_passwords_do_not_show_when_the_settings_are_printed() -> None:
    settings = host_network(
        {"PIP_INDEX_URL": "https://u:hidden@x.example", "HTTP_PROXY": "http://u:hidden@y"}, []
    )
    assert "hidden" not in repr(settings)


def test_a_broken_configuration_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("not an ini file")
    assert host_network({}, [tmp_path / "pip.conf"], system_ca=()) == NetworkSettings()


def test_pips_own_files_are_looked_for_in_pips_order() -> None:
    home, prefix = Path("/home/u"), Path("/venv")
    assert [
        str(path) for path in pip_config_files({"XDG_CONFIG_DIRS": "/a:/b"}, home=home, prefix=prefix)
    ] == [
        "/a/pip/pip.conf",
        "/b/pip/pip.conf",
        "/etc/pip.conf",
        "/home/u/.pip/pip.conf",
        "/home/u/.config/pip/pip.conf",
        "/venv/pip.conf",
    ]
    named = pip_config_files({"PIP_CONFIG_FILE": "/mine"}, home=home, prefix=prefix)
    assert named[-1] == Path("/mine")
    assert pip_config_files({"PIP_CONFIG_FILE": "/dev/null"}, home=home, prefix=prefix) == ()
