from __future__ import annotations

import pickle
from dataclasses import replace


def test_the_home_is_made_when_it_is_first_needed(client):
    assert not client.path.exists()
    assert client.home.path == client.path
    assert client.path.is_dir()


def test_the_home_is_opened_once(client):
    assert client.home is client.home


def test_variables_of_the_caller_are_not_shown(client):
    assert "environ" not in repr(client)


def test_a_copy_for_another_process_has_that_processs_variables(client, monkeypatch):
    data = pickle.dumps(replace(client, environ={"DETBUILD_TEST_SECRET": "s3cr3t"}))
    assert b"s3cr3t" not in data
    monkeypatch.setenv("DETBUILD_TEST_SECRET", "another")
    again = pickle.loads(data)
    assert (again.path, again.environ["DETBUILD_TEST_SECRET"]) == (client.path, "another")
