"""The context directory: the files that go into the image, and how they are sent to the engine.

* `walk`: `read_context`, `snapshot`, `listing`; `check_shadowing` and `without_credentials` check the result
* `gitignore`: the rules of `.detignore`, on pathspec
* `snapshot`: `ContextSnapshot`, `Entry`, `Tree`, `open_entry`; `HashCache`, which avoids reading files again
* `scripts`: `with_unix_scripts`
* `archive`: `stream`
"""
