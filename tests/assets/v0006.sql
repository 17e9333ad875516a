CREATE TABLE architectures (
    id integer NOT NULL,
    name text NOT NULL,
    family text NOT NULL,
    topology text NOT NULL
);
CREATE SEQUENCE architectures_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE architectures_id_seq OWNED BY architectures.id;
CREATE TABLE archreg_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE calibrations (
    id integer NOT NULL,
    spec_hash text NOT NULL,
    distance text CONSTRAINT calibrations_metric_not_null NOT NULL,
    rate double precision NOT NULL,
    tolerance double precision CONSTRAINT calibrations_accuracy_not_null NOT NULL,
    quantiles text NOT NULL,
    source text NOT NULL,
    created timestamp with time zone NOT NULL,
    tolerance_low double precision,
    tolerance_high double precision,
    models integer,
    families integer
);
CREATE SEQUENCE calibrations_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE calibrations_id_seq OWNED BY calibrations.id;
CREATE TABLE classes (
    id integer NOT NULL,
    partition_id integer NOT NULL,
    number integer NOT NULL,
    identity text NOT NULL,
    medoid_id integer,
    diameter double precision NOT NULL,
    bounded boolean NOT NULL,
    tail_class text NOT NULL,
    training_class text NOT NULL
);
CREATE SEQUENCE classes_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE classes_id_seq OWNED BY classes.id;
CREATE TABLE conjugacy (
    model_id integer NOT NULL,
    rule integer NOT NULL,
    tail_01 double precision NOT NULL,
    tail_02 double precision NOT NULL,
    tail_05 double precision NOT NULL,
    wishart_tail_01 double precision NOT NULL,
    wishart_tail_02 double precision NOT NULL,
    wishart_tail_05 double precision NOT NULL,
    z double precision NOT NULL,
    tail_class text NOT NULL,
    training_class text NOT NULL,
    decay_law text,
    decay_threshold double precision,
    decay_exceedances bigint,
    decay_rate double precision,
    decay_exponent double precision,
    decay_statistic double precision
);
CREATE TABLE fingerprints (
    spec_id integer NOT NULL,
    model_id integer NOT NULL,
    vector bytea NOT NULL,
    stamp bigint DEFAULT '0'::bigint NOT NULL
);
ALTER TABLE ONLY fingerprints ALTER COLUMN vector SET STORAGE PLAIN;
CREATE TABLE items (
    run_id integer NOT NULL,
    "position" integer NOT NULL,
    reference text NOT NULL,
    name text NOT NULL,
    cost double precision NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    remedy text NOT NULL,
    seconds double precision,
    model_id integer
);
CREATE TABLE layers (
    model_id integer NOT NULL,
    "position" integer NOT NULL,
    name text NOT NULL,
    tensor text NOT NULL,
    shape text NOT NULL,
    kind text NOT NULL,
    kernel text NOT NULL,
    p bigint NOT NULL,
    q bigint NOT NULL,
    axis integer NOT NULL,
    start bigint NOT NULL,
    stop bigint NOT NULL,
    mean double precision NOT NULL,
    "offset" bigint NOT NULL,
    count bigint NOT NULL,
    method text DEFAULT ''::text NOT NULL,
    period bigint DEFAULT '0'::bigint NOT NULL
);
CREATE TABLE members (
    class_id integer NOT NULL,
    model_id integer NOT NULL
);
CREATE TABLE metrics (
    model_id integer NOT NULL,
    name text NOT NULL,
    dataset text NOT NULL,
    split text NOT NULL,
    value double precision NOT NULL,
    higher_is_better boolean,
    source text NOT NULL
);
CREATE TABLE models (
    id integer NOT NULL,
    architecture_id integer NOT NULL,
    content_hash text NOT NULL,
    topology text NOT NULL,
    parameters bigint NOT NULL,
    bytes bigint NOT NULL,
    layers integer NOT NULL,
    gflops double precision,
    task text NOT NULL,
    dataset text NOT NULL,
    licence text NOT NULL,
    source text NOT NULL,
    revision text NOT NULL,
    recipe text NOT NULL,
    training text NOT NULL,
    seed bigint,
    tool_version text NOT NULL,
    matrix_rule text NOT NULL,
    created timestamp with time zone NOT NULL,
    "precision" text DEFAULT ''::text NOT NULL,
    format text DEFAULT ''::text NOT NULL,
    location text DEFAULT ''::text NOT NULL,
    entry text DEFAULT ''::text NOT NULL,
    unread bigint DEFAULT '0'::bigint NOT NULL,
    nonfinite bigint DEFAULT '0'::bigint NOT NULL,
    notes text DEFAULT '[]'::text NOT NULL,
    header_hash text DEFAULT ''::text NOT NULL
);
CREATE SEQUENCE models_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE models_id_seq OWNED BY models.id;
CREATE TABLE names (
    id integer NOT NULL,
    name text NOT NULL,
    model_id integer NOT NULL,
    created timestamp with time zone NOT NULL
);
CREATE SEQUENCE names_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE names_id_seq OWNED BY names.id;
CREATE TABLE partitions (
    id integer NOT NULL,
    spec_id integer NOT NULL,
    distance text CONSTRAINT partitions_metric_not_null NOT NULL,
    rule text NOT NULL,
    tolerance double precision CONSTRAINT partitions_accuracy_not_null NOT NULL,
    scope text NOT NULL,
    mark text NOT NULL,
    models integer NOT NULL,
    created timestamp with time zone NOT NULL
);
CREATE SEQUENCE partitions_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE partitions_id_seq OWNED BY partitions.id;
CREATE TABLE runs (
    id integer NOT NULL,
    plan text NOT NULL,
    command text NOT NULL,
    options text NOT NULL,
    state text NOT NULL,
    tool_version text NOT NULL,
    worker text NOT NULL,
    started timestamp with time zone NOT NULL,
    heartbeat timestamp with time zone NOT NULL,
    finished timestamp with time zone
);
CREATE SEQUENCE runs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE runs_id_seq OWNED BY runs.id;
CREATE TABLE sketches (
    model_id integer NOT NULL,
    version integer NOT NULL,
    buckets integer NOT NULL,
    data bytea NOT NULL
);
CREATE TABLE skipped (
    model_id integer NOT NULL,
    "position" integer NOT NULL,
    name text NOT NULL,
    dtype text NOT NULL,
    shape text NOT NULL,
    reason text NOT NULL
);
CREATE TABLE specs (
    id integer NOT NULL,
    hash text NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    matrix_rule text NOT NULL,
    length integer NOT NULL,
    definition text NOT NULL,
    created timestamp with time zone NOT NULL,
    stamp bigint DEFAULT '0'::bigint NOT NULL,
    removed bigint DEFAULT '0'::bigint NOT NULL,
    indexed bigint
);
CREATE SEQUENCE specs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE specs_id_seq OWNED BY specs.id;
CREATE TABLE spectra (
    model_id integer NOT NULL,
    data bytea NOT NULL
);
ALTER TABLE ONLY spectra ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE tags (
    model_id integer NOT NULL,
    key text NOT NULL,
    value text NOT NULL
);
CREATE TABLE weight_figures (
    model_id integer NOT NULL,
    version integer NOT NULL,
    layers bytea NOT NULL,
    statistics text NOT NULL
);
ALTER TABLE ONLY architectures ALTER COLUMN id SET DEFAULT nextval('architectures_id_seq'::regclass);
ALTER TABLE ONLY calibrations ALTER COLUMN id SET DEFAULT nextval('calibrations_id_seq'::regclass);
ALTER TABLE ONLY classes ALTER COLUMN id SET DEFAULT nextval('classes_id_seq'::regclass);
ALTER TABLE ONLY models ALTER COLUMN id SET DEFAULT nextval('models_id_seq'::regclass);
ALTER TABLE ONLY names ALTER COLUMN id SET DEFAULT nextval('names_id_seq'::regclass);
ALTER TABLE ONLY partitions ALTER COLUMN id SET DEFAULT nextval('partitions_id_seq'::regclass);
ALTER TABLE ONLY runs ALTER COLUMN id SET DEFAULT nextval('runs_id_seq'::regclass);
ALTER TABLE ONLY specs ALTER COLUMN id SET DEFAULT nextval('specs_id_seq'::regclass);
INSERT INTO architectures VALUES (1, 'ResNet-20', 'resnet', 't0');
INSERT INTO architectures VALUES (2, '', 'vgg', 't0');
INSERT INTO archreg_version VALUES ('v0006');
INSERT INTO calibrations VALUES (1, '353fc70f538a71c1', 'l2', 0.01, 0.5, '[[0.01, 0.5], [0.5, 2.0]]', 'frozen', '2026-12-01 10:10:14.531486+00', 0.25, 1, 3, 2);
INSERT INTO classes VALUES (1, 1, 1, '0123456789abcdef', 1, 0.25, false, 'long', 'trained');
INSERT INTO conjugacy VALUES (2, 3, 3.8312849397452147, 1.9156424698726073, 1.2770949799150715, 3.5, 3.25, 3, 0.5473264199636021, 'edge', 'untrained', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO conjugacy VALUES (1, 3, 5.582751372901797, 2.7913756864508983, 1.8609171243005989, 3.5, 3.25, 3, 0.7975359104145424, 'long', 'trained', 'power', 4.25, 412, 0.6978439216127246, 1.8609171243005989, 2.5);
INSERT INTO fingerprints VALUES (1, 2, '\x85b7b93f87415d3fd25579be', 2);
INSERT INTO fingerprints VALUES (2, 2, '\x674f9d3f4e2997bf1e50163f60b7b63f', 2);
INSERT INTO fingerprints VALUES (1, 1, '\xa2a7dfbe0466c33c538ab73f', 3);
INSERT INTO fingerprints VALUES (2, 1, '\xb2ef49bf05477a3f663227bf11b90ac0', 3);
INSERT INTO items VALUES (1, 0, 'a.pt', 'a', 1, 'waiting', 0, '', '', NULL, NULL);
INSERT INTO items VALUES (1, 1, 'b.pt', 'b', 2, 'waiting', 0, '', '', NULL, NULL);
INSERT INTO layers VALUES (1, 0, 'stem.weight', 'stem.weight', '[4, 3, 3, 3]', 'conv', '[3, 3]', 4, 27, 0, 0, 0, 0.4809938040753181, 0, 4, '', 0);
INSERT INTO layers VALUES (1, 1, 'attn.in_proj_weight[q]', 'attn.in_proj_weight', '[4, 4]', 'attention', '[]', 4, 4, 0, 4, 8, 0.778161797807326, 4, 4, '', 0);
INSERT INTO layers VALUES (1, 2, 'head.weight', 'head.weight', '[6, 5]', 'linear', '[]', 6, 5, 0, 0, 0, 0.22063752752244828, 8, 5, '', 0);
INSERT INTO layers VALUES (2, 0, 'stem.weight', 'stem.weight', '[4, 3, 3, 3]', 'conv', '[3, 3]', 4, 27, 0, 0, 0, 0.6400904733690886, 0, 4, '', 0);
INSERT INTO layers VALUES (2, 1, 'attn.in_proj_weight[q]', 'attn.in_proj_weight', '[4, 4]', 'attention', '[]', 4, 4, 0, 4, 8, 0.6916897133880333, 4, 4, '', 0);
INSERT INTO layers VALUES (2, 2, 'head.weight', 'head.weight', '[6, 5]', 'linear', '[]', 6, 5, 0, 0, 0, 0.6698659593467048, 8, 5, '', 0);
INSERT INTO layers VALUES (3, 0, 'stem.weight', 'stem.weight', '[4, 3, 3, 3]', 'conv', '[3, 3]', 4, 27, 0, 0, 0, 0.18471577801635927, 0, 4, '', 0);
INSERT INTO layers VALUES (3, 1, 'attn.in_proj_weight[q]', 'attn.in_proj_weight', '[4, 4]', 'attention', '[]', 4, 4, 0, 4, 8, 0.20230481792926308, 4, 4, '', 0);
INSERT INTO layers VALUES (3, 2, 'head.weight', 'head.weight', '[6, 5]', 'linear', '[]', 6, 5, 0, 0, 0, 0.9606405293524887, 8, 5, '', 0);
INSERT INTO members VALUES (1, 1);
INSERT INTO members VALUES (1, 2);
INSERT INTO metrics VALUES (3, 'top1', 'cifar10', 'test', 92.6, true, 'paper');
INSERT INTO metrics VALUES (3, 'loss', 'svhn', '', 0.3, NULL, '');
INSERT INTO metrics VALUES (1, 'top1', 'cifar10', 'test', 92.6, true, 'paper');
INSERT INTO metrics VALUES (1, 'loss', 'svhn', '', 0.3, NULL, '');
INSERT INTO models VALUES (2, 2, 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', 't0', 1002, 4008, 3, NULL, '', '', '', '', '', '', '', NULL, '0.1.0', 'r1', '2026-12-01 10:10:14.368094+00', 'int4 gptq', '', '', '', 3, 1, '["A note."]', '5555555555555555555555555555555555555555555555555555555555555555');
INSERT INTO models VALUES (3, 1, '4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce', 't0', 1003, 4012, 3, 0.041, 'classification', 'CIFAR10', 'MIT', 'files:resnet20.safetensors', 'abc', 'sgd', '200 epochs', 1099511627776, '0.1.0', 'r1', '2026-12-01 10:10:14.390609+00', '', '', '', '', 0, 0, '[]', '');
INSERT INTO models VALUES (1, 1, '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', 't0', 1001, 4004, 3, 0.041, 'classification', 'CIFAR10', 'MIT', 'files:resnet20.safetensors', 'abc', 'sgd', '200 epochs', 1099511627776, '0.1.0', 'r1', '2026-12-01 10:10:14.327681+00', '', 'torch', '/runs/first.pt', 'ema', 0, 0, '[]', '');
INSERT INTO names VALUES (1, 'first', 1, '2026-12-01 10:10:14.337785+00');
INSERT INTO names VALUES (2, 'second', 2, '2026-12-01 10:10:14.374587+00');
INSERT INTO names VALUES (3, 'third', 3, '2026-12-01 10:10:14.39226+00');
INSERT INTO names VALUES (4, 'first again', 1, '2026-12-01 10:10:14.519474+00');
INSERT INTO partitions VALUES (1, 1, 'l2', 'complete', 0.5, '{}', 'mark', 2, '2026-12-01 10:10:14.540198+00');
INSERT INTO runs VALUES (1, 'plan', 'archreg ingest a', '{}', 'running', '0.1.0', 'vm:14332', '2026-12-01 10:10:14.552178+00', '2026-12-01 10:10:14.552178+00', NULL);
INSERT INTO sketches VALUES (1, 1, 16, '\x0000003c0040004200440045004600470048804800498049004a804a004b804b004c404c804cc04c004d404d804dc04d004e404e804ec04e004f404f804fc04f00502050405060508050a050c050e05000512051405160518051a051c051e051');
INSERT INTO skipped VALUES (1, 0, 'bn.running_mean', 'float32', '[4]', 'batch statistics');
INSERT INTO skipped VALUES (2, 0, 'bn.running_mean', 'float32', '[4]', 'batch statistics');
INSERT INTO skipped VALUES (3, 0, 'bn.running_mean', 'float32', '[4]', 'batch statistics');
INSERT INTO specs VALUES (1, '353fc70f538a71c1', 'mme', 1, 'r1', 3, '{"beta": 2, "depths": [], "length": 3, "locations": [0.1, 0.3333333333333333, 10.0], "matrix_rule": "r1", "name": "mme", "reference": "expected", "seed": 0, "version": 1, "weights": ""}', '2026-12-01 10:10:14.347271+00', 3, 0, NULL);
INSERT INTO specs VALUES (2, 'cbf1bdc67146a87a', 'layered', 2, 'r1', 4, '{"beta": 2, "depths": [0.0, 1.0], "length": 4, "locations": [0.5, 5.0], "matrix_rule": "r1", "name": "layered", "reference": "expected", "seed": 0, "version": 2, "weights": "w1"}', '2026-12-01 10:10:14.350788+00', 3, 0, NULL);
INSERT INTO spectra VALUES (1, '\x255d313e12b3523e33401a3fef2e4140c90f293d0152313f1417443f7c012040c267873edbac953e292a7f3f37fea83fc6130840');
INSERT INTO spectra VALUES (3, '\x69d9db3d32abc23e99ccae3f8365094021fc693efa02133f9ac4773f59ae0e40ad9a683ecee8c43e722ae13e73378c3f33983640');
INSERT INTO tags VALUES (3, 'owner', 'anna');
INSERT INTO tags VALUES (3, 'stage', 'prod');
INSERT INTO tags VALUES (1, 'owner', 'anna');
INSERT INTO tags VALUES (1, 'stage', 'prod');
SELECT pg_catalog.setval('architectures_id_seq', 2, true);
SELECT pg_catalog.setval('calibrations_id_seq', 1, true);
SELECT pg_catalog.setval('classes_id_seq', 1, true);
SELECT pg_catalog.setval('models_id_seq', 3, true);
SELECT pg_catalog.setval('names_id_seq', 4, true);
SELECT pg_catalog.setval('partitions_id_seq', 1, true);
SELECT pg_catalog.setval('runs_id_seq', 1, true);
SELECT pg_catalog.setval('specs_id_seq', 2, true);
ALTER TABLE ONLY archreg_version
    ADD CONSTRAINT archreg_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY architectures
    ADD CONSTRAINT pk_architectures PRIMARY KEY (id);
ALTER TABLE ONLY calibrations
    ADD CONSTRAINT pk_calibrations PRIMARY KEY (id);
ALTER TABLE ONLY classes
    ADD CONSTRAINT pk_classes PRIMARY KEY (id);
ALTER TABLE ONLY conjugacy
    ADD CONSTRAINT pk_conjugacy PRIMARY KEY (model_id);
ALTER TABLE ONLY fingerprints
    ADD CONSTRAINT pk_fingerprints PRIMARY KEY (spec_id, model_id);
ALTER TABLE ONLY items
    ADD CONSTRAINT pk_items PRIMARY KEY (run_id, "position");
ALTER TABLE ONLY layers
    ADD CONSTRAINT pk_layers PRIMARY KEY (model_id, "position");
ALTER TABLE ONLY members
    ADD CONSTRAINT pk_members PRIMARY KEY (class_id, model_id);
ALTER TABLE ONLY metrics
    ADD CONSTRAINT pk_metrics PRIMARY KEY (model_id, name, dataset, split);
ALTER TABLE ONLY models
    ADD CONSTRAINT pk_models PRIMARY KEY (id);
ALTER TABLE ONLY names
    ADD CONSTRAINT pk_names PRIMARY KEY (id);
ALTER TABLE ONLY partitions
    ADD CONSTRAINT pk_partitions PRIMARY KEY (id);
ALTER TABLE ONLY runs
    ADD CONSTRAINT pk_runs PRIMARY KEY (id);
ALTER TABLE ONLY sketches
    ADD CONSTRAINT pk_sketches PRIMARY KEY (model_id);
ALTER TABLE ONLY skipped
    ADD CONSTRAINT pk_skipped PRIMARY KEY (model_id, "position");
ALTER TABLE ONLY specs
    ADD CONSTRAINT pk_specs PRIMARY KEY (id);
ALTER TABLE ONLY spectra
    ADD CONSTRAINT pk_spectra PRIMARY KEY (model_id);
ALTER TABLE ONLY tags
    ADD CONSTRAINT pk_tags PRIMARY KEY (model_id, key);
ALTER TABLE ONLY weight_figures
    ADD CONSTRAINT pk_weight_figures PRIMARY KEY (model_id);
ALTER TABLE ONLY architectures
    ADD CONSTRAINT uq_architectures_name_family_topology UNIQUE (name, family, topology);
ALTER TABLE ONLY calibrations
    ADD CONSTRAINT uq_calibrations_spec_hash_distance UNIQUE (spec_hash, distance);
ALTER TABLE ONLY classes
    ADD CONSTRAINT uq_classes_partition_id_identity UNIQUE (partition_id, identity);
ALTER TABLE ONLY models
    ADD CONSTRAINT uq_models_content_hash UNIQUE (content_hash);
ALTER TABLE ONLY names
    ADD CONSTRAINT uq_names_name UNIQUE (name);
ALTER TABLE ONLY partitions
    ADD CONSTRAINT uq_partitions_spec_id_distance_rule_tolerance_scope UNIQUE (spec_id, distance, rule, tolerance, scope);
ALTER TABLE ONLY specs
    ADD CONSTRAINT uq_specs_hash UNIQUE (hash);
CREATE INDEX ix_architectures_family ON architectures USING btree (family);
CREATE INDEX ix_classes_identity ON classes USING btree (identity);
CREATE INDEX ix_classes_medoid_id ON classes USING btree (medoid_id);
CREATE UNIQUE INDEX ix_classes_partition_id_number ON classes USING btree (partition_id, number);
CREATE INDEX ix_fingerprints_model_id ON fingerprints USING btree (model_id);
CREATE INDEX ix_fingerprints_spec_id_stamp ON fingerprints USING btree (spec_id, stamp);
CREATE INDEX ix_items_model_id ON items USING btree (model_id);
CREATE INDEX ix_layers_approximate ON layers USING btree (model_id) WHERE (method <> ''::text);
CREATE INDEX ix_members_model_id ON members USING btree (model_id);
CREATE INDEX ix_models_architecture_id ON models USING btree (architecture_id);
CREATE INDEX ix_models_matrix_rule ON models USING btree (matrix_rule);
CREATE INDEX ix_models_parameters ON models USING btree (parameters);
CREATE INDEX ix_names_model_id ON names USING btree (model_id);
CREATE INDEX ix_partitions_spec_id ON partitions USING btree (spec_id);
CREATE INDEX ix_runs_plan ON runs USING btree (plan);
ALTER TABLE ONLY classes
    ADD CONSTRAINT fk_classes_medoid_id_models FOREIGN KEY (medoid_id) REFERENCES models(id) ON DELETE SET NULL;
ALTER TABLE ONLY classes
    ADD CONSTRAINT fk_classes_partition_id_partitions FOREIGN KEY (partition_id) REFERENCES partitions(id) ON DELETE CASCADE;
ALTER TABLE ONLY conjugacy
    ADD CONSTRAINT fk_conjugacy_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY fingerprints
    ADD CONSTRAINT fk_fingerprints_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY fingerprints
    ADD CONSTRAINT fk_fingerprints_spec_id_specs FOREIGN KEY (spec_id) REFERENCES specs(id) ON DELETE CASCADE;
ALTER TABLE ONLY items
    ADD CONSTRAINT fk_items_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE SET NULL;
ALTER TABLE ONLY items
    ADD CONSTRAINT fk_items_run_id_runs FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY layers
    ADD CONSTRAINT fk_layers_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY members
    ADD CONSTRAINT fk_members_class_id_classes FOREIGN KEY (class_id) REFERENCES classes(id) ON DELETE CASCADE;
ALTER TABLE ONLY members
    ADD CONSTRAINT fk_members_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY metrics
    ADD CONSTRAINT fk_metrics_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY models
    ADD CONSTRAINT fk_models_architecture_id_architectures FOREIGN KEY (architecture_id) REFERENCES architectures(id);
ALTER TABLE ONLY names
    ADD CONSTRAINT fk_names_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY partitions
    ADD CONSTRAINT fk_partitions_spec_id_specs FOREIGN KEY (spec_id) REFERENCES specs(id) ON DELETE CASCADE;
ALTER TABLE ONLY sketches
    ADD CONSTRAINT fk_sketches_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY skipped
    ADD CONSTRAINT fk_skipped_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY spectra
    ADD CONSTRAINT fk_spectra_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY tags
    ADD CONSTRAINT fk_tags_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
ALTER TABLE ONLY weight_figures
    ADD CONSTRAINT fk_weight_figures_model_id_models FOREIGN KEY (model_id) REFERENCES models(id) ON DELETE CASCADE;
