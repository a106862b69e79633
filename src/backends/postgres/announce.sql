CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $tierstack${body}$tierstack$;
-- Of an older version.
DROP TRIGGER IF EXISTS tierstack_announce_insert ON {table};
DROP TRIGGER IF EXISTS tierstack_announce_update ON {table};
DROP TRIGGER IF EXISTS tierstack_announce_delete ON {table};
DROP TRIGGER IF EXISTS tierstack_announce_truncate ON {table};
DROP TRIGGER IF EXISTS "{trigger}" ON {table};
-- Triggers run in the order of their names: this one sees what the others made of the key. In a transaction that
-- has changed many rows it is not called any more.
CREATE TRIGGER "{trigger}" BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
    WHEN (current_setting('tierstack.told_' || {literal}::regclass::oid, true) IS DISTINCT FROM 'all')
    EXECUTE FUNCTION {function}();
CREATE TRIGGER tierstack_announce_truncate AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {function}();
-- Also for rows that logical replication brings.
ALTER TABLE {table} ENABLE ALWAYS TRIGGER "{trigger}";
ALTER TABLE {table} ENABLE ALWAYS TRIGGER tierstack_announce_truncate;
