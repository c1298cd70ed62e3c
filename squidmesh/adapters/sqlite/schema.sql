-- Version 1. Instants are ISO 8601 text in UTC with microseconds, which sorts as time does.
-- A name in front of every table, because the file may be the host's own database.
-- What is read by its run only has its run's id first in its primary key.
-- An "encoding" says how the documents of a row are written: 0 is JSON text.

create table squidmesh_schema (
    version integer not null
) strict;

create table squidmesh_runs (
    run_id text not null primary key,
    workflow text not null,
    version text,
    definition text not null,
    trigger_name text not null,
    status text not null,
    revision integer not null,
    current_step text,
    queue text not null,
    priority integer not null,
    concurrency_key text,
    tags text,
    parent_run text,
    parent_step text,
    root text,
    trace_context text,
    deadline_at text,
    replayed_from text,
    begun integer not null,
    cancelling integer not null,
    error text,
    undoing text,
    encoding integer not null default 0,
    started_at text not null,
    updated_at text not null,
    ended_at text
) strict;

create index squidmesh_runs_started
    on squidmesh_runs (started_at desc, run_id desc);

create index squidmesh_runs_workflow
    on squidmesh_runs (workflow, started_at desc, run_id desc);

create index squidmesh_runs_status
    on squidmesh_runs (status, started_at desc, run_id desc);

create index squidmesh_runs_ended
    on squidmesh_runs (ended_at)
    where ended_at is not null;

create table squidmesh_step_runs (
    run_id text not null,
    step text not null,
    visit integer not null,
    position integer not null,
    status text not null,
    output text,
    output_encoding integer not null default 0,
    under text,
    error text,
    error_encoding integer not null default 0,
    transition integer,
    ended integer,
    applied integer,
    failures integer not null,
    lost integer not null,
    deferrals integer not null,
    deferred text,
    carried integer not null,
    manual text,
    since text not null,
    primary key (run_id, step, visit)
) strict;

create table squidmesh_attempts (
    run_id text not null,
    step text not null,
    visit integer not null,
    number integer not null,
    definition text not null,
    queue text not null,
    priority integer not null,
    concurrency_key text,
    status text not null,
    scheduled_at text not null,
    visible_at text not null,
    wake_at text,
    claimed_at text,
    ended_at text,
    claim_id text,
    token_hash text,
    owner text,
    lease integer,
    lease_until text,
    fence integer,
    error text,
    error_encoding integer not null default 0,
    primary key (run_id, step, visit, number)
) strict;

create index squidmesh_attempts_due
    on squidmesh_attempts (queue, definition, priority desc, visible_at, run_id, number, step)
    where status = 'scheduled';

create index squidmesh_attempts_leased
    on squidmesh_attempts (lease_until)
    where status = 'claimed';

create index squidmesh_attempts_owed
    on squidmesh_attempts (wake_at)
    where wake_at is not null and status = 'scheduled';

create table squidmesh_entries (
    run_id text not null,
    revision integer not null,
    at text not null,
    format integer not null,
    cause text not null,
    actor text,
    data text not null,
    encoding integer not null default 0,
    hash text,
    primary key (run_id, revision)
) strict;

create table squidmesh_checkpoints (
    run_id text not null primary key,
    revision integer not null,
    format integer not null,
    data text not null,
    encoding integer not null default 0
) strict;

create table squidmesh_definitions (
    fingerprint text not null primary key,
    workflow text not null,
    version text,
    format integer not null,
    document text not null
) strict;

create index squidmesh_definitions_workflow
    on squidmesh_definitions (workflow);

create table squidmesh_idempotency_keys (
    scope text not null,
    key text not null,
    run_id text not null,
    command text not null,
    digest text not null,
    created_at text not null,
    expires_at text,
    primary key (scope, key)
) strict, without rowid;

create table squidmesh_receipts (
    run_id text not null,
    key text not null,
    command text not null,
    primary key (run_id, key)
) strict, without rowid;

create table squidmesh_workers (
    owner text not null primary key,
    queues text not null,
    definitions text not null,
    seen_at text not null
) strict, without rowid;

create table squidmesh_leases (
    name text not null primary key,
    owner text not null,
    until text not null
) strict, without rowid;

insert into squidmesh_schema (version) values (1);
