-- As Rails 8.0 writes it to db/structure.sql (`config.active_record.schema_format = :sql`) for
--   create_table :articles, id: :uuid do |t|
--     t.string :title, null: false
--     t.jsonb :meta, null: false, default: {}
--     t.integer :lock_version, null: false, default: 0
--     t.timestamps
--   end
--   add_index :articles, :title
-- See https://guides.rubyonrails.org/active_record_postgresql.html#uuid-primary-keys and
-- https://guides.rubyonrails.org/active_record_migrations.html#types-of-schema-dumps
CREATE TABLE public.ar_internal_metadata (
    key character varying NOT NULL,
    value character varying,
    created_at timestamp(6) without time zone NOT NULL,
    updated_at timestamp(6) without time zone NOT NULL
);
CREATE TABLE public.articles (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    title character varying NOT NULL,
    meta jsonb DEFAULT '{}'::jsonb NOT NULL,
    lock_version integer DEFAULT 0 NOT NULL,
    created_at timestamp(6) without time zone NOT NULL,
    updated_at timestamp(6) without time zone NOT NULL
);
CREATE TABLE public.schema_migrations (
    version character varying NOT NULL
);
ALTER TABLE ONLY public.ar_internal_metadata
    ADD CONSTRAINT ar_internal_metadata_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.articles
    ADD CONSTRAINT articles_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);
CREATE INDEX index_articles_on_title ON public.articles USING btree (title);
INSERT INTO "schema_migrations" (version) VALUES
('20260131120000');
