"""The scripts here need libraries that the tests do not: none of them is collected."""

collect_ignore_glob = ["*.py"]
