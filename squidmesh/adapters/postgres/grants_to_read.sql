-- What a role needs that lists and inspects runs, and changes nothing.
grant usage on schema {schema} to {role};

grant select on all tables in schema {schema} to {role};
