-- Version 1, for PostgreSQL 14 and newer. {schema} stands for the name that the store was given.
-- What changes with every commit about a run stands together, so that the log of a change is short.
-- An "encoding" says how the documents of a row are written: 0 is JSON text, kept byte for byte.

-- The row of a run is rewritten with each of its commits. It stays on its page, and out of the
-- indexes: none of them holds what changes before the end, and pages are left some room.
create table {schema}.runs (
    run_id uuid not null primary key,
    updated_at timestamptz not null,
    ended_at timestamptz,
    revision integer not null,
    begun boolean not null,
    cancelling boolean not null,
    status text not null,
    current_step text,
    error text,
    undoing text,
    encoding smallint not null default 0,
    priority integer not null,
    started_at timestamptz not null,
    deadline_at timestamptz,
    workflow text not null,
    version text,
    definition text not null,
    trigger_name text not null,
    queue text not null,
    concurrency_key text,
    tags jsonb,
    parent_run uuid,
    parent_step text,
    root uuid,
    replayed_from uuid,
    trace_context text
) with (fillfactor = 60);

-- The newest are found at its end: an index that grows there stays full.
create index runs_workflow
    on {schema}.runs (workflow, started_at, run_id);

-- What a run ended as stands apart, so that its row stays out of the indexes to the last.
create table {schema}.ended_runs (
    ended_at timestamptz not null,
    started_at timestamptz not null,
    run_id uuid not null,
    status text not null
);

create index ended_runs_status
    on {schema}.ended_runs (status, started_at, run_id);

-- Runs that are not over and had no open step: nothing brings them on, and they can be found here.
create table {schema}.stuck_runs (
    run_id uuid not null primary key
);

-- A visit of a step, with its latest attempt: one row to insert and one to update per step. Of the
-- attempt's instants those are null that equal the visit's own, unless the attempt still waits, and so are
-- counts of nothing, and a queue that is the run's. What ends a visit changes only columns at its
-- end, so that little is logged.
create table {schema}.step_runs (
    run_id uuid not null,
    since timestamptz not null,
    visit integer not null,
    position integer not null,
    step text not null,
    carried boolean,
    output_encoding smallint not null default 0,
    error_encoding smallint not null default 0,
    number integer,
    fence integer,
    failures integer,
    lost integer,
    deferrals integer,
    priority integer,
    lease bigint,
    scheduled_at timestamptz,
    visible_at timestamptz,
    claimed_at timestamptz,
    wake_at timestamptz,
    claim_id text,
    owner text,
    queue text,
    definition text,
    concurrency_key text,
    deferred text,
    manual text,
    status text not null,
    attempt_status text,
    token_hash text,
    lease_until timestamptz,
    ended_at timestamptz,
    transition integer,
    ended integer,
    applied integer,
    output text,
    under text,
    error text,
    attempt_error text,
    primary key (run_id, step, visit)
) with (fillfactor = 50);

create index step_runs_due
    on {schema}.step_runs (queue, definition, priority desc, visible_at, run_id, number, step)
    where attempt_status = 'scheduled';

create index step_runs_leased
    on {schema}.step_runs (lease_until)
    where attempt_status = 'claimed';

create index step_runs_owed
    on {schema}.step_runs (wake_at)
    where attempt_status = 'scheduled' and wake_at is not null;

create index step_runs_paused
    on {schema}.step_runs (run_id)
    where status = 'paused';

-- The attempts before the latest one of their visit.
create table {schema}.attempts (
    run_id uuid not null,
    visit integer not null,
    number integer not null,
    step text not null,
    status text not null,
    ended_at timestamptz,
    scheduled_at timestamptz not null,
    visible_at timestamptz not null,
    claimed_at timestamptz,
    lease_until timestamptz,
    lease bigint,
    fence integer,
    claim_id text,
    owner text,
    queue text not null,
    error text,
    error_encoding smallint not null default 0,
    primary key (run_id, step, visit, number)
);

create table {schema}.entries (
    run_id uuid not null,
    at timestamptz not null,
    revision integer not null,
    format smallint not null,
    encoding smallint not null default 0,
    cause text not null,
    actor text,
    data text not null,
    hash bytea,
    primary key (run_id, revision)
);

create table {schema}.checkpoints (
    run_id uuid not null primary key,
    revision integer not null,
    format smallint not null,
    encoding smallint not null default 0,
    data text not null
);

create table {schema}.definitions (
    fingerprint text not null primary key,
    format smallint not null,
    workflow text not null,
    version text,
    document text not null
);

create table {schema}.idempotency_keys (
    scope text not null,
    key text not null,
    run_id uuid not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    command text not null,
    digest text not null,
    primary key (scope, key)
);

create table {schema}.receipts (
    run_id uuid not null,
    key text not null,
    command text not null,
    primary key (run_id, key)
);

create table {schema}.workers (
    owner text not null primary key,
    seen_at timestamptz not null,
    queues text not null,
    definitions text not null
);

create table {schema}.leases (
    name text not null primary key,
    owner text not null,
    until timestamptz not null
);

-- Last, and whole: without it there are no tables, whatever a script that broke off has left.
create table {schema}.schema_version as select 1 as version;
