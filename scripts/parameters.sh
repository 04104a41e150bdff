#!/bin/sh
# Documents made from the parameter table (src/config/params.def):
#   parameters.sh md    docs/parameters.md
#   parameters.sh man   docs/man/posthouse-main.cf.5
posthouse=${POSTHOUSE:-build/src/posthouse}
case "${1:-md}" in
md)
cat <<'H'
# Parameters

Every parameter that Posthouse reads, from `src/config/params.def`; made by `make docs`. Names and
meaning are Postfix's ([postconf(5)](https://www.postfix.org/postconf.5.html)); rows marked
[Posthouse] are ours. What Postfix has and Posthouse has not is refused or harmless: see below
(`src/config/unread.def`). `posthouse check` names it all, and names that Postfix does not have, too.
Per transport, `<transport>_destination_concurrency_limit`, `_destination_recipient_limit`,
`_destination_rate_delay` and `_destination_concurrency_failed_cohort_limit` are read too.

| name | type | default | what it does |
|---|---|---|---|
H
exec $posthouse config -D ;;
man)
cat <<'H'
.TH POSTHOUSE\-MAIN.CF 5 2026-11-22 "Posthouse 0.1.0"
.SH NAME
posthouse\-main.cf \- parameters of Posthouse's main.cf
.SH DESCRIPTION
One \fIname\fR = \fIvalue\fR a line, in Postfix's syntax: a line that begins with white space continues
the one before, # begins a comment line, $name stands for another parameter's value. A name of
Postfix that is not listed here is refused or harmless (posthouse config \-U lists them all); posthouse check
names what is set.
.SH PARAMETERS
H
exec $posthouse config -R ;;
esac
