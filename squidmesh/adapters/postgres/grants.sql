-- What a role needs that works on runs, starts them or decides them.
-- The journal can be appended to and not changed. Only rows of forgotten workers are ever deleted.
grant usage on schema {schema} to {role};

grant select on {schema}.schema_version to {role};

grant select, insert
    on {schema}.entries, {schema}.ended_runs, {schema}.stuck_runs, {schema}.definitions
    to {role};

grant select, insert, update
    on {schema}.runs, {schema}.step_runs, {schema}.attempts, {schema}.checkpoints,
        {schema}.idempotency_keys, {schema}.receipts, {schema}.leases
    to {role};

grant select, insert, update, delete on {schema}.workers to {role};
