"""Tables of patterns, rule by rule: what Debian's postmap -q finds in them, and what ours does; in a file and between braces."""
import os
import subprocess

import pytest

from kit import POSTHOUSE

import pair

# name: (types, the rules, keys to ask for)
TABLES = {
    "if and a tab": ("regexp pcre", "if\t/b/\n/x/ inner\nendif\n/./ outer\n", "x bx"),
    "if with another delimiter": ("regexp pcre", "if|b|\n/x/ inner\nendif\nIF,y,\n/z/ upper\nENDIF\n/./ outer\n", "x bx yz z"),
    "text behind if and endif": ("regexp pcre", "if /b/ more\n/x/ inner\nendif more\n/./ outer\n", "x bx b"),
    "if that is not closed": ("regexp pcre", "if !/b/\n/x/ inner\n/./ outer\n", "x bx"),
    "an if that is none": ("regexp pcre", "if /(/\n/x/ inner\nendif\nifx /y/\nif2 /y/\n/./ outer\n", "x y"),
    "ends without a begin": ("regexp pcre", "endif\n/x/ inner\nendif  \nendify\n/./ outer\n", "x y"),
    "groups above nine": ("regexp pcre", "/^(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)$/ $11 ${10}$(2)-$1-\n", "abcdefghijk"),
    "values that are none": ("regexp pcre", "/a/ $foo\n/b(.)/ $2\n/c(.)/ $1x\n/d/ cost $\n/e/ ${\n/f/ $0\n/g(.)/ ${1}x$$y\n/h(.)/ $(1\n"
                             "!/i/ $1\n/./ last\n", "a bb cc d e f gg hh i j"),
    "no value": ("regexp pcre", "/x/\n/x/ two\n", "x"),
    "a group that did not match": ("regexp pcre", "/a(b)?(c)/ <$1$2>\n", "ac abc"),
    "negation": ("regexp pcre", "!!/x/ twice\n! /a/ not a\n!if /b/\n/./ rest\n", "x a b"),
    "edges of words": ("regexp pcre", "/\\<foo\\>/ word\n/\\bbar\\b/ bound\n/^\\w+$/ letters\n", "a-foo-b foobar x<foo> a.bar bar_ -"),
    "a backslash in brackets": ("regexp pcre", "/[\\.]x/ dot\n/^[^\\s]+$/ none\n/./ last\n", ".x \\x sx tx tas"),
    "what only one of both has": ("regexp pcre", "/(?i)x/ first\n/\\d+/ digits\n/a{2,3}b/ times\n/y++/ more\n/[[:digit:]]z/ class\n"
                                  "/(a|ab)(c|bcd)(d*)/ $1,$2,$3\n/./ last\n", "X 12 aab yy 1z abcd"),
    "flags": ("regexp pcre", "/Aa/i exact\n/b b/x plain\n/c +/x plus\n/d/z unknown\n/e/A anchor\n/f/U lazy\n/g/s dot\n/h/X old\n/./ last\n",
              "aa Aa bb c c+ d e f g h"),
    "delimiters": ("regexp pcre", "|a|p1 x\n|a| one\n,b, two\n/c\\/d/ three\n=e= four\n/f\n1g1 digit\nword six\n/./ last\n",
                   "a b c/d e f g word"),
    "lines": ("regexp pcre", "  /x/ lead\n/x/ a\n  b\n# c\n  d\n", "x"),
    "networks in brackets, and without a result": ("cidr", "[10.0.0.0/8] ten\n![2001:db8::/32] six\n[172.16.0.0]/12 in\n[9.0.0.0/8\t\n"
                                                   "[8.0.0.0/8]/8 x\n[7.0.0.0]x/8 y\n6.0.0.0/8\n6.0.0.1\t\n6.0.0.0/8 last\n",
                                                   "10.1.1.1 2001:db8::1 ::1 172.16.0.1 9.1.1.1 8.0.0.1 7.0.0.1 6.0.0.1 6.0.0.2"),
    "text behind if and endif of networks": ("cidr", "if 10.0.0.0/8 # ours\n9.0.0.1 x\nendif\nif 8.0.0.0/8\nendif more\n8.0.0.1 y\n"
                                             "7.0.0.1 z\nendif\n6.0.0.1 last\n", "10.0.0.1 9.0.0.1 8.0.0.1 7.0.0.1 6.0.0.1"),
    "networks": ("cidr", "10.0.0.0/8 ten\nif 192.168.0.0/16\n192.168.1.0/24 one\n!192.168.2.0/24 not2\nendif\nif\t172.16.0.0/12\n"
                 "0.0.0.0/0 in172\nendif\n1.2.3.4/24 bad\n2001:db8::/32 $1 six\n[::1] seven\n"
                 "172.31.0.1\n! \nIF!9.0.0.0/8\n!5.0.0.0/8 not5\nENDIF\n",
                 "10.1.1.1 192.168.1.5 192.168.2.5 192.168.3.1 172.16.1.1 1.2.3.4 5.1.1.1 6.6.6.6 9.9.9.9 "
                 "2001:db8::1 2001:DB8:0::1 ::1 x 172.31.0.1"),
}
# The same between braces: (type:{…}, keys)
INLINE = [
    ("pcre:{{/^a(.*)$/ v$1}, {!/b/ none}}", "ax b c"), ("regexp:{ {if /x/}, {/y/ both},{endif} {/./ rest} }", "xy y x"),
    ("cidr:{{10.0.0.0/8 ten},{!192.168.0.0/16 far}}", "10.1.2.3 192.168.1.1 8.8.8.8"), ("pcre:{{/a{2}/ two a}}", "a aa"),
    ("regexp:{{|x y|  a blank}}", "x"), ("pcre:{/a/ x}", "a"), ("pcre:{", "a"), ("cidr:{}", "1.2.3.4"), ("regexp:{{/a/ x} y}", "a"),
]


def write_old(path, text):
    """Postfix waits for files that have just been written: somebody may be writing on."""
    path.write_text(text)
    os.utime(path, (1000000000, 1000000000))


def found(command, table, keys, where):
    """Exit status and what each key finds."""
    r = subprocess.run([*command, "-q", "-", table], input="\n".join(keys.split()) + "\n", capture_output=True, text=True,
                       cwd=where)
    return r.returncode, r.stdout


@pytest.fixture
def commands(tmp_path):
    tmp_path.chmod(0o755)
    write_old(tmp_path / "main.cf", f"myhostname = mta.example\nmaillog_file = {tmp_path}/log\nmaillog_file_prefixes = {tmp_path}\n")
    (tmp_path / "postmap").symlink_to(POSTHOUSE)
    return ([*pair.INSIDE, "postmap", "-c", tmp_path], [tmp_path / "postmap", "-c", tmp_path])


@pytest.mark.parametrize("name", TABLES)
def test_rules_like_postfix(commands, tmp_path, name):
    types, rules, keys = TABLES[name]
    write_old(tmp_path / "rules", rules)
    for kind in types.split():
        theirs, ours = (found(c, f"{kind}:{tmp_path}/rules", keys, tmp_path) for c in commands)
        assert ours == theirs, kind


@pytest.mark.skipif(pair.VERSION < (3, 7), reason="rules between braces came with 3.7")
@pytest.mark.parametrize("table,keys", INLINE, ids=[t for t, _ in INLINE])
def test_rules_between_braces_like_postfix(commands, tmp_path, table, keys):
    theirs, ours = (found(c, table, keys, tmp_path) for c in commands)
    assert ours == theirs
