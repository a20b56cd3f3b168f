import pytest

from detbuild.testing.storage import BucketContract


class TestFolder(BucketContract):
    @pytest.fixture(autouse=True)
    def empty_folder(self, tmp_path):
        self.storage = {"type": "folder", "path": str(tmp_path / "bucket"), "token": "not to be seen"}
