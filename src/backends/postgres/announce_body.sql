
-- It never fails: what it cannot announce by key, it announces as a change of everything.
DECLARE
    channel text := 'tierstack_' || TG_RELID;
    -- How many keys this transaction has announced of the table; after `all`, the trigger is skipped.
    counter text := 'tierstack.told_' || TG_RELID;
    origin text := coalesce(current_setting('tierstack.origin', true), '');
    told integer;
    key bytea;
    keys bytea[] := '{{}}';
BEGIN
    BEGIN
        told := coalesce(nullif(current_setting(counter, true), ''), '0')::integer;
        IF TG_OP IN ('UPDATE', 'DELETE') THEN
            keys := keys || {old};
        END IF;
        IF TG_OP IN ('INSERT', 'UPDATE') AND NOT keys @> ARRAY[{new}] THEN
            keys := keys || {new};
        END IF;
        told := told + cardinality(keys);
        IF TG_OP = 'TRUNCATE' OR told > 1000 THEN
            RAISE EXCEPTION 'everything';
        END IF;
        FOREACH key IN ARRAY keys LOOP
            -- A payload has less than 8000 bytes.
            IF key IS NULL OR octet_length(key) > 2600 THEN
                RAISE EXCEPTION 'everything';
            END IF;
            PERFORM pg_notify(channel, origin || ' ' || encode(key, 'hex'));
        END LOOP;
        PERFORM set_config(counter, told::text, true);
    EXCEPTION WHEN OTHERS THEN
        PERFORM pg_notify(channel, origin || ' *');
        PERFORM set_config(counter, 'all', true);
    END;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
