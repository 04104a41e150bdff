#!/bin/sh
# docs/parameters.md from the parameter table (src/config/params.def).
cat <<'H'
# Parameters

Every parameter that Posthouse reads, from `src/config/params.def`; made by `make docs`. Names and
meaning are Postfix's ([postconf(5)](https://www.postfix.org/postconf.5.html)); rows marked
[Posthouse] are ours. A parameter that is not listed is accepted, and `posthouse check` names it.
Per transport, `<transport>_destination_concurrency_limit`, `_destination_recipient_limit`,
`_destination_rate_delay` and `_destination_concurrency_failed_cohort_limit` are read too.

| name | type | default | what it does |
|---|---|---|---|
H
exec build/src/posthouse config -D
