"""Directories as mail systems set them up, rebuilt small (tests/directories): posthouse check has a word for all that they set."""
import re
import subprocess

import pytest
from kit import POSTHOUSE, ROOT, Posthouse, make_cert

DIRECTORIES = ["iredmail/mysql", "iredmail/pgsql", "iredmail/ldap", "docker-mailserver", "mailcow", "mail-in-a-box", "boky", "satellite"]
TABLES = {"mysql": "hosts = 127.0.0.1\nuser = u\npassword = p\ndbname = d\nquery = SELECT x FROM y WHERE z='%s'\n",
          "pgsql": "hosts = 127.0.0.1\nuser = u\npassword = p\ndbname = d\nquery = SELECT x FROM y WHERE z='%s'\n",
          "ldap": "server_host = ldap://127.0.0.1\nversion = 3\nsearch_base = dc=x\nquery_filter = (m=%s)\nresult_attribute = r\n",
          "sqlite": "dbpath = {folder}/none.sqlite\nquery = SELECT x FROM y WHERE z='%s'\n"}
DESTINATION = ["_destination_concurrency_limit", "_destination_recipient_limit", "_destination_rate_delay"]
REFUSED = {"iredmail": "header_checks", "docker-mailserver": "smtpd_milters", "mailcow": "smtpd_upstream_proxy_protocol",
           "mail-in-a-box": "cleanup_service_name", "boky": "masquerade_domains", "satellite": "smtp_generic_maps"}
SERVED = {"smtpd", "smtp", "lmtp", "local", "error", "discard", "postscreen"}


def build(folder, name):
    """The directory with every file that it names."""
    name, _, backend = name.partition("/")
    p = Posthouse(directory=folder)
    main, master = [(ROOT / "tests/directories" / name / f).read_text().replace("{backend}", backend) for f in ("main.cf", "master.cf")]
    for kind, path in set(re.findall(r"(?:proxy:)?(\w+):\$config_directory/([\w./-]+)", main + master)):
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        text = TABLES.get(kind, "").replace("{folder}", str(folder))
        text = text or {"pcre": "/x/ DUNNO\n", "regexp": "/x/ DUNNO\n", "cidr": "10.9.8.7 reject\n"}.get(kind, "key.example value:x\n")
        (folder / path).write_text(text if "aliases" not in path else "root: admin@example.org\n")
        (folder / path).chmod(0o600)
        if kind in ("hash", "lmdb"):
            p.postmap(f"{kind}:{folder / path}")
    (folder / "ssl").mkdir(exist_ok=True)
    cert, key = make_cert(folder, "mail.example.org")
    for file, data in (("cert.pem", cert.read_bytes()), ("key.pem", key.read_bytes()), ("chain.pem", key.read_bytes() + cert.read_bytes())):
        (folder / "ssl" / file).write_bytes(data)
        (folder / "ssl" / file).chmod(0o600)
    (folder / "mailname").write_text("laptop.example.org\n")
    (folder / "main.cf").write_text(main), (folder / "master.cf").write_text(master)
    return p, main, master


def verdicts():
    """{kind: names} of the table that parser, check and documents are made of."""
    out = subprocess.run([POSTHOUSE, "config", "-U"], capture_output=True, text=True, check=True).stdout
    kinds = {}
    for row in out.splitlines():
        kinds.setdefault(row.split("\t")[0], set()).add(row.split("\t")[1])
    return kinds


def logical(text):
    return re.sub(r"\n\s+", " ", text).splitlines()


def settings(main, master):
    """Names of parameters that are set, with values of those that are lists of restrictions; services that are named."""
    names, words, services = set(), set(), []
    for line in logical(main):
        name, value = [x.strip() for x in line.split("=", 1)]
        names.add(name)
        if name.endswith("_restrictions"):
            words |= set(re.findall(r"\b(?:permit|reject|check|defer|warn)\w*", value))
    for line in logical(master):
        fields = line.split()
        services.append((fields[0], fields[1], fields[7]))
        for name, value in re.findall(r"-o ([\w-]+)=(\S*)", line):
            if fields[7] in SERVED:
                names.add(name)
                if name.endswith("_restrictions"):
                    words |= set(re.findall(r"\b(?:permit|reject|check|defer|warn)\w*", value))
    return names, words, services


@pytest.mark.parametrize("name", DIRECTORIES)
def test_nothing_that_a_directory_sets_is_unnamed(tmp_path, name):
    p, main, master = build(tmp_path, name)
    known = verdicts()
    r = p.run("check")
    said, lines = r.stdout, r.stdout.splitlines()
    assert "cannot open" not in said and "No such file" not in said, said
    names, words, services = settings(main, master)
    read = known["read"] | {f"{s[0]}{end}" for s in services for end in DESTINATION if s[2] in ("smtp", "lmtp")}

    def is_said(word):
        return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", said) is not None

    # what is refused is not said where it is set to what Postfix does anyway; names of a directory's own serve other values
    unnamed = {n for n in names - read - known["refused"] if not is_said(n) and f"${n}" not in main + master}
    assert unnamed == set(), said
    assert is_said(REFUSED[name.split("/")[0]]), said
    missing = known["refused word"] | known["harmless word"]
    assert [w for w in sorted(words & missing) if not is_said(w)] == []
    assert [s for s in services if s[2] not in SERVED and not is_said(f"{s[0]} ({s[2]}")] == []
    levels = [line.split(":")[0] for line in lines]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    if name.startswith("iredmail"):
        assert len(lines) <= 50, len(lines)
    assert r.returncode == 2
