from __future__ import annotations


def test_the_home_is_made_when_it_is_first_needed(client):
    assert not client.path.exists()
    assert client.home.path == client.path
    assert client.path.is_dir()


def test_the_home_is_opened_once(client):
    assert client.home is client.home


def test_variables_of_the_caller_are_not_shown(client):
    assert "environ" not in repr(client)
