CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $tierstack$
DECLARE
    channel text := 'tierstack_' || TG_RELID;
    origin text := coalesce(current_setting('tierstack.origin', true), '');
    source text;
    keys text;
    cut integer;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify(channel, origin || ' *');
        RETURN NULL;
    END IF;
    source := CASE TG_OP
        WHEN 'INSERT' THEN 'SELECT %1$I AS k FROM new_rows'
        WHEN 'DELETE' THEN 'SELECT %1$I AS k FROM old_rows'
        ELSE 'SELECT %1$I AS k FROM old_rows UNION SELECT %1$I FROM new_rows'
    END;
    -- Many keys, or long ones, are announced as a change of everything.
    EXECUTE 'SELECT CASE WHEN count(*) > 1000 OR max(octet_length(k)) > 2600 THEN ''*'''
        || ' ELSE string_agg(encode(k, ''hex''), '','') END FROM (' || format(source, TG_ARGV[0]) || ') AS rows'
        INTO keys;
    IF keys IS NULL THEN
        RETURN NULL;
    END IF;
    -- A payload has less than 8000 bytes.
    WHILE length(keys) > 7900 LOOP
        cut := 7901 - position(',' IN reverse(left(keys, 7900)));
        PERFORM pg_notify(channel, origin || ' ' || left(keys, cut - 1));
        keys := substr(keys, cut + 1);
    END LOOP;
    PERFORM pg_notify(channel, origin || ' ' || keys);
    RETURN NULL;
END
$tierstack$;
COMMENT ON FUNCTION {function}() IS '{comment}';
CREATE TRIGGER tierstack_announce_insert AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {function}({key});
CREATE TRIGGER tierstack_announce_update AFTER UPDATE ON {table}
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {function}({key});
CREATE TRIGGER tierstack_announce_delete AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION {function}({key});
CREATE TRIGGER tierstack_announce_truncate AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {function}({key});
