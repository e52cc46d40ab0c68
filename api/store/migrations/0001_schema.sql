-- SPDX-License-Identifier: BSD-2-Clause
-- The tables. Every key of a table that grows with traffic or with customers begins with the owner, so that they can be
-- distributed by it; nothing here uses a trigger. Money is NUMERIC(38,18), rates NUMERIC(20,9), bytes BIGINT, time UTC.

CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;
CREATE SCHEMA gateway;
CREATE SCHEMA billing;

-- ---- people and their tokens --------------------------------------------------------------------------------

CREATE TABLE gateway.app_user (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    external_id text UNIQUE,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_.@-]{0,62}$'),
    email       text,
    role        text NOT NULL CHECK (role IN ('admin', 'user', 'billing', 'service')),
    created     timestamptz NOT NULL DEFAULT now()
);

-- G3: the limit is one conditional UPDATE of this row, in the transaction that inserts the gateway.
CREATE TABLE gateway.account (
    owner        uuid PRIMARY KEY REFERENCES gateway.app_user,
    gateways     integer NOT NULL DEFAULT 0 CHECK (gateways >= 0),
    max_gateways integer NOT NULL DEFAULT 5 CHECK (max_gateways >= 0)
);

-- A token is known by its hash only (BLAKE2b-256 of its text).
CREATE TABLE gateway.token (
    hash       bytea PRIMARY KEY CHECK (length(hash) = 32),
    kind       text NOT NULL CHECK (kind IN ('session', 'login', 'agent', 'enroll')),
    user_id    uuid REFERENCES gateway.app_user ON DELETE CASCADE,
    owner      uuid,
    gateway    uuid,
    attempt    integer,
    generation bigint,
    created    timestamptz NOT NULL DEFAULT now(),
    expires    timestamptz NOT NULL,
    used       timestamptz,
    CHECK ((kind IN ('session', 'login')) = (user_id IS NOT NULL)),
    CHECK ((kind IN ('agent', 'enroll')) = (gateway IS NOT NULL AND owner IS NOT NULL AND attempt IS NOT NULL))
);
CREATE INDEX token_gateway ON gateway.token (gateway) WHERE gateway IS NOT NULL;

-- ---- what the operator offers --------------------------------------------------------------------------------

CREATE TABLE gateway.image (
    id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name    text NOT NULL UNIQUE,
    purpose text NOT NULL,
    path    text,
    sha256  text,
    enabled boolean NOT NULL DEFAULT true,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE gateway.plan (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name         text NOT NULL UNIQUE,
    cpu          integer NOT NULL CHECK (cpu > 0),
    ram_mb       integer NOT NULL CHECK (ram_mb > 0),
    storage_gb   integer NOT NULL CHECK (storage_gb > 0),
    included_gb  numeric(20, 9) CHECK (included_gb >= 0 AND included_gb <= 9000000000), -- NULL: unlimited
    credit_value numeric(20, 9) CHECK (credit_value >= 0),                              -- NULL: the location's
    created      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE gateway.plan_group (
    id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name    text NOT NULL UNIQUE,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE gateway.plan_group_plan (
    plan_group uuid NOT NULL REFERENCES gateway.plan_group ON DELETE CASCADE,
    plan       uuid NOT NULL REFERENCES gateway.plan,
    position   integer NOT NULL,
    PRIMARY KEY (plan_group, plan),
    UNIQUE (plan_group, position)
);

CREATE TABLE gateway.location (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text NOT NULL UNIQUE,
    vpn_enabled boolean NOT NULL DEFAULT false,
    image       uuid REFERENCES gateway.image ON DELETE SET NULL,
    plan_group  uuid REFERENCES gateway.plan_group,
    created     timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT vpn_enabled OR plan_group IS NOT NULL)
);

-- B3: prices, accounting and policy hold from a UTC hour on; a row whose hour has begun never changes.
CREATE TABLE gateway.rate_version (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    location       uuid NOT NULL REFERENCES gateway.location ON DELETE CASCADE,
    from_hour      timestamptz NOT NULL CHECK (from_hour = date_trunc('hour', from_hour, 'UTC')),
    credit_value   numeric(20, 9) NOT NULL CHECK (credit_value >= 0),
    bandwidth_rate numeric(20, 9) NOT NULL CHECK (bandwidth_rate >= 0),
    accounting     text NOT NULL CHECK (accounting IN ('uploads', 'downloads', 'both')),
    overage        text NOT NULL CHECK (overage IN ('none', 'charge_overage', 'revoke_access')),
    announced      boolean NOT NULL DEFAULT false, -- its hour has begun and the gateways have been told
    UNIQUE (location, from_hour)
);

CREATE TABLE gateway.hypervisor (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL UNIQUE,
    location   uuid NOT NULL REFERENCES gateway.location,
    driver     text NOT NULL CHECK (driver IN ('netns')),
    cpu        integer NOT NULL CHECK (cpu > 0),
    ram_mb     integer NOT NULL CHECK (ram_mb > 0),
    storage_gb integer NOT NULL CHECK (storage_gb > 0),
    created    timestamptz NOT NULL DEFAULT now()
);

-- ---- the mirror of the cloud's networks (A9) -----------------------------------------------------------------

CREATE TABLE gateway.vpc (
    owner       uuid NOT NULL REFERENCES gateway.app_user,
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    external_id text,
    location    uuid NOT NULL REFERENCES gateway.location,
    name        text NOT NULL CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$'),
    created     timestamptz NOT NULL DEFAULT now(),
    deleted     timestamptz, -- the row stays: gateways that were billed name it
    PRIMARY KEY (owner, id)
);
CREATE UNIQUE INDEX vpc_name ON gateway.vpc (owner, name) WHERE deleted IS NULL;
CREATE UNIQUE INDEX vpc_external_id ON gateway.vpc (owner, external_id) WHERE deleted IS NULL;

CREATE TABLE gateway.subnet (
    owner       uuid NOT NULL,
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    vpc         uuid NOT NULL,
    cidr        cidr NOT NULL,
    public      boolean NOT NULL,
    range_first inet, -- what is delegated to Wiretoll: only these addresses are handed out
    range_last  inet,
    router      inet,
    PRIMARY KEY (owner, id),
    FOREIGN KEY (owner, vpc) REFERENCES gateway.vpc ON DELETE CASCADE,
    EXCLUDE USING gist (owner WITH =, vpc WITH =, cidr inet_ops WITH &&),
    CHECK ((range_first IS NULL) = (range_last IS NULL)),
    CHECK (range_first IS NULL OR (range_first <<= cidr AND range_last <<= cidr AND range_first <= range_last))
);

CREATE TABLE gateway.attachment (
    owner       uuid NOT NULL,
    subnet      uuid NOT NULL,
    hypervisor  uuid NOT NULL REFERENCES gateway.hypervisor,
    bridge      text NOT NULL CHECK (bridge ~ '^[a-zA-Z0-9_.-]{1,15}$'),
    route_netns text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (owner, subnet, hypervisor),
    FOREIGN KEY (owner, subnet) REFERENCES gateway.subnet ON DELETE CASCADE
);

-- Addresses ever handed out. Local to the coordinator in a distributed database: scarce, and searched across owners.
CREATE TABLE gateway.address (
    subnet   uuid NOT NULL,
    ip       inet NOT NULL,
    public   boolean NOT NULL,
    owner    uuid,
    gateway  uuid, -- NULL: free since freed
    attempt  integer,
    freed    timestamptz,
    PRIMARY KEY (subnet, ip)
);
CREATE UNIQUE INDEX address_public ON gateway.address (ip) WHERE public AND gateway IS NOT NULL;
CREATE INDEX address_gateway ON gateway.address (gateway) WHERE gateway IS NOT NULL;

-- ---- gateways and peers ---------------------------------------------------------------------------------------

CREATE TABLE gateway.gateway (
    owner             uuid NOT NULL REFERENCES gateway.app_user,
    id                uuid NOT NULL DEFAULT gen_random_uuid(),
    name              text NOT NULL CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$'),
    vpc               uuid NOT NULL,
    public_subnet     uuid NOT NULL,
    location          uuid NOT NULL REFERENCES gateway.location,
    plan              uuid NOT NULL REFERENCES gateway.plan,
    status            text NOT NULL DEFAULT 'deploying'
                      CHECK (status IN ('deploying', 'active', 'error', 'deleting', 'deleted')),
    suspended_reasons text[] NOT NULL DEFAULT '{}' CHECK (suspended_reasons <@ ARRAY ['allowance', 'admin', 'billing']),
    error             text,
    attempt           integer NOT NULL DEFAULT 1,
    generation        bigint NOT NULL DEFAULT 0, -- the agents' fencing token: the newest enrolment
    revision          bigint NOT NULL DEFAULT 1,
    applied_revision  bigint NOT NULL DEFAULT 0,
    public_ip         inet,
    tunnel_subnet     cidr NOT NULL CHECK (family(tunnel_subnet) = 4),
    tunnel_subnet6    cidr NOT NULL CHECK (family(tunnel_subnet6) = 6),
    listen_port       integer NOT NULL DEFAULT 51820 CHECK (listen_port BETWEEN 1 AND 65535),
    masquerade        text NOT NULL DEFAULT 'road_warriors' CHECK (masquerade IN ('road_warriors', 'all', 'none')),
    public_key        bytea CHECK (length(public_key) = 32),
    hypervisor        uuid REFERENCES gateway.hypervisor,
    active_since      timestamptz, -- of this deployment
    complete_through  timestamptz, -- every byte before it has been reported
    last_report       timestamptz,
    watch_until       timestamptz,
    created           timestamptz NOT NULL DEFAULT now(),
    deleted           timestamptz,
    PRIMARY KEY (owner, id),
    FOREIGN KEY (owner, vpc) REFERENCES gateway.vpc,
    CHECK ((status = 'deleted') = (deleted IS NOT NULL))
);
CREATE UNIQUE INDEX gateway_one_per_vpc ON gateway.gateway (owner, vpc) WHERE status <> 'deleted'; -- G2
CREATE UNIQUE INDEX gateway_name ON gateway.gateway (owner, name) WHERE status <> 'deleted';
CREATE INDEX gateway_id ON gateway.gateway (id);

CREATE TABLE gateway.job (
    gateway     uuid PRIMARY KEY,
    owner       uuid NOT NULL,
    attempt     integer NOT NULL,
    goal        text NOT NULL CHECK (goal IN ('active', 'absent')),
    hypervisor  uuid REFERENCES gateway.hypervisor,
    uid_number  integer, -- of the gateway's processes on that host
    step        text NOT NULL DEFAULT 'queued',
    tries       integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT now(),
    worker      text,
    lease_until timestamptz,
    deadline    timestamptz NOT NULL,
    finished    boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX job_uid ON gateway.job (hypervisor, uid_number) WHERE uid_number IS NOT NULL;

CREATE TABLE gateway.job_log (
    gateway uuid NOT NULL,
    id      bigint GENERATED ALWAYS AS IDENTITY,
    attempt integer NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    step    text NOT NULL,
    line    text NOT NULL,
    PRIMARY KEY (gateway, id)
);

CREATE TABLE gateway.peer (
    owner            uuid NOT NULL,
    gateway          uuid NOT NULL,
    id               uuid NOT NULL DEFAULT gen_random_uuid(),
    kind             text NOT NULL CHECK (kind IN ('road_warrior', 'site_to_site', 'vpc_peering')),
    name             text NOT NULL CHECK (name ~ '^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$'),
    public_key       bytea NOT NULL CHECK (length(public_key) = 32),
    psk_sealed       bytea,
    endpoint         text,
    keepalive        integer NOT NULL DEFAULT 0 CHECK (keepalive BETWEEN 0 AND 65535),
    dns              inet[] NOT NULL DEFAULT '{}',
    enabled          boolean NOT NULL DEFAULT true,
    last_handshake   timestamptz,
    current_endpoint text,
    created          timestamptz NOT NULL DEFAULT now(),
    removed          timestamptz, -- the row stays: usage and invoices name it
    PRIMARY KEY (owner, gateway, id),
    FOREIGN KEY (owner, gateway) REFERENCES gateway.gateway
);
CREATE UNIQUE INDEX peer_public_key ON gateway.peer (owner, gateway, public_key) WHERE removed IS NULL;
CREATE UNIQUE INDEX peer_name ON gateway.peer (owner, gateway, name) WHERE removed IS NULL;

-- P7: no prefix of a gateway belongs to two peers, whatever raced. Freed rows say how long a tunnel IP has rested.
CREATE TABLE gateway.prefix (
    owner   uuid NOT NULL,
    gateway uuid NOT NULL,
    peer    uuid NOT NULL,
    cidr    cidr NOT NULL,
    tunnel  boolean NOT NULL, -- an address of the tunnel subnets
    freed   timestamptz,
    FOREIGN KEY (owner, gateway, peer) REFERENCES gateway.peer,
    CONSTRAINT prefix_owned_once EXCLUDE USING gist (owner WITH =, gateway WITH =, cidr inet_ops WITH &&)
        WHERE (freed IS NULL)
);
CREATE INDEX prefix_peer ON gateway.prefix (owner, gateway, peer);

-- ---- usage ----------------------------------------------------------------------------------------------------

CREATE TABLE billing.cycle (
    id     integer PRIMARY KEY, -- year * 100 + month
    starts timestamptz NOT NULL,
    ends   timestamptz NOT NULL,
    state  text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closing', 'final')),
    rolled boolean NOT NULL DEFAULT false, -- every living gateway holds a bucket of it
    CHECK (starts = date_trunc('hour', starts, 'UTC') AND ends = date_trunc('hour', ends, 'UTC')),
    EXCLUDE USING gist (tstzrange(starts, ends) WITH &&)
);

-- B8: usage and allowance of (owner, location, cycle, number); a gateway holds one.
CREATE TABLE billing.bucket (
    owner         uuid NOT NULL,
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    location      uuid NOT NULL,
    cycle         integer NOT NULL REFERENCES billing.cycle,
    number        integer NOT NULL CHECK (number > 0),
    holder        uuid,   -- the living gateway; NULL: none
    allowance     bigint CHECK (allowance >= 0), -- bytes; NULL: unlimited
    credit_value  numeric(20, 9), -- the plan's own, as it was when the holder took the bucket; NULL: the location's
    extra         bigint NOT NULL DEFAULT 0 CHECK (extra >= 0),
    used          bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    charged       bigint NOT NULL DEFAULT 0 CHECK (charged >= 0), -- overage bytes settled; never falls
    grant_seq     bigint NOT NULL DEFAULT 1,
    exhausted_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, id),
    UNIQUE (owner, location, cycle, number)
);
CREATE UNIQUE INDEX bucket_holder ON billing.bucket (owner, holder, cycle) WHERE holder IS NOT NULL;

-- The cursor of an epoch: a batch is applied when its seq is last_seq + 1.
CREATE TABLE billing.epoch (
    owner         uuid NOT NULL,
    gateway       uuid NOT NULL,
    id            uuid NOT NULL,
    boot_id       uuid NOT NULL,
    generation    bigint NOT NULL,
    last_seq      bigint NOT NULL DEFAULT 0,
    counted       bigint NOT NULL DEFAULT 0, -- the kernel's, in the directions in force
    cycle         integer,                   -- of the grant in force, with what was counted under it
    cycle_counted bigint NOT NULL DEFAULT 0,
    covered_to    timestamptz,
    created       timestamptz NOT NULL DEFAULT clock_timestamp(), -- a gateway's newest epoch is its current one
    sealed        timestamptz,
    quarantined   text,
    PRIMARY KEY (owner, id),
    FOREIGN KEY (owner, gateway) REFERENCES gateway.gateway
);
CREATE INDEX epoch_gateway ON billing.epoch (owner, gateway);

CREATE TABLE billing.epoch_batch (
    owner uuid NOT NULL,
    epoch uuid NOT NULL,
    seq   bigint NOT NULL,
    crc   bigint NOT NULL,
    PRIMARY KEY (owner, epoch, seq)
);

-- The totals that each slot has reached: what a later total is compared with.
CREATE TABLE billing.counter (
    owner       uuid NOT NULL,
    epoch       uuid NOT NULL,
    slot        integer NOT NULL CHECK (slot >= 0),
    incarnation bigint NOT NULL,
    peer        uuid,
    up          bigint NOT NULL CHECK (up >= 0),
    down        bigint NOT NULL CHECK (down >= 0),
    up_packets  bigint NOT NULL CHECK (up_packets >= 0),
    down_packets bigint NOT NULL CHECK (down_packets >= 0),
    undelivered bigint NOT NULL DEFAULT 0 CHECK (undelivered >= 0),
    refused     bigint NOT NULL DEFAULT 0 CHECK (refused >= 0),
    PRIMARY KEY (owner, epoch, slot, incarnation),
    CHECK ((slot = 0) = (peer IS NULL))
);

CREATE TABLE billing.usage_record (
    owner       uuid NOT NULL,
    hour        timestamptz NOT NULL CHECK (hour = date_bin('1 hour', hour, '2000-01-01 00:00:00+00')),
    epoch       uuid NOT NULL,
    seq         bigint NOT NULL,
    slot        integer NOT NULL,
    incarnation bigint NOT NULL,
    gateway     uuid NOT NULL,
    peer        uuid,
    grant_cycle integer,
    d_up        bigint NOT NULL CHECK (d_up >= 0),
    d_down      bigint NOT NULL CHECK (d_down >= 0),
    d_up_packets   bigint NOT NULL CHECK (d_up_packets >= 0),
    d_down_packets bigint NOT NULL CHECK (d_down_packets >= 0),
    d_undelivered  bigint NOT NULL CHECK (d_undelivered >= 0),
    d_refused      bigint NOT NULL CHECK (d_refused >= 0),
    PRIMARY KEY (owner, hour, epoch, seq, slot, incarnation)
) PARTITION BY RANGE (hour);
CREATE TABLE billing.usage_record_default PARTITION OF billing.usage_record DEFAULT;

-- The rollup that queries and invoices read. peer is all zeros for what belongs to no peer.
CREATE TABLE billing.usage_hour (
    owner       uuid NOT NULL,
    gateway     uuid NOT NULL,
    hour        timestamptz NOT NULL CHECK (hour = date_bin('1 hour', hour, '2000-01-01 00:00:00+00')),
    peer        uuid NOT NULL,
    up          bigint NOT NULL CHECK (up >= 0),
    down        bigint NOT NULL CHECK (down >= 0),
    up_packets  bigint NOT NULL CHECK (up_packets >= 0),
    down_packets bigint NOT NULL CHECK (down_packets >= 0),
    undelivered bigint NOT NULL CHECK (undelivered >= 0),
    refused     bigint NOT NULL CHECK (refused >= 0),
    PRIMARY KEY (owner, gateway, hour, peer)
);

-- B2 and B5: overage of a gateway's UTC hour, posted to the ledger when its reports are complete past the hour.
CREATE TABLE billing.overage_hour (
    owner        uuid NOT NULL,
    gateway      uuid NOT NULL,
    hour         timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    bucket       uuid NOT NULL,
    rate_version bigint NOT NULL REFERENCES gateway.rate_version,
    bytes        bigint NOT NULL CHECK (bytes >= 0),
    posted_bytes bigint NOT NULL DEFAULT 0 CHECK (posted_bytes >= 0 AND posted_bytes <= bytes),
    parts        integer NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, gateway, hour, bucket)
);

CREATE TABLE billing.active_interval (
    owner   uuid NOT NULL,
    gateway uuid NOT NULL,
    span    tstzrange NOT NULL CHECK (NOT isempty(span)),
    state   text NOT NULL CHECK (state IN ('active', 'suspended')),
    EXCLUDE USING gist (owner WITH =, gateway WITH =, span WITH &&)
);

-- ---- money ----------------------------------------------------------------------------------------------------

-- One line per gateway, kind, UTC hour and part, whatever posts it and however often.
CREATE TABLE billing.ledger (
    owner        uuid NOT NULL,
    id           uuid NOT NULL DEFAULT gen_random_uuid(),
    gateway      uuid NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('base', 'bandwidth', 'adjust')),
    utc_hour     timestamptz NOT NULL CHECK (utc_hour = date_trunc('hour', utc_hour, 'UTC')),
    part         integer NOT NULL DEFAULT 1 CHECK (part > 0),
    span         tstzrange NOT NULL,
    cycle        integer NOT NULL REFERENCES billing.cycle,
    bucket       uuid,
    bytes        bigint CHECK (bytes > 0),
    rate         numeric(20, 9) NOT NULL, -- base: the Credit Value; bandwidth: credits per GB
    rate_version bigint NOT NULL REFERENCES gateway.rate_version,
    hour_index   integer, -- base: k of H
    month_hours  integer,
    amount       numeric(38, 18) NOT NULL CHECK (kind = 'adjust' OR amount >= 0),
    feed_id      bigint,
    created      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, id),
    UNIQUE (owner, gateway, kind, utc_hour, part),
    CHECK ((kind = 'base') = (hour_index IS NOT NULL AND month_hours IS NOT NULL)),
    CHECK (kind <> 'base' OR part = 1),
    -- Multiplication of numerics is exact; division would keep some 16 digits only.
    CHECK (kind <> 'bandwidth' OR (bytes IS NOT NULL AND amount = rate * bytes * 0.000000001))
);
CREATE INDEX ledger_cycle ON billing.ledger (owner, cycle);
CREATE INDEX ledger_unsealed ON billing.ledger (created) WHERE feed_id IS NULL;

CREATE TABLE billing.action (
    owner    uuid NOT NULL,
    id       uuid NOT NULL DEFAULT gen_random_uuid(),
    bucket   uuid NOT NULL,
    gateway  uuid NOT NULL,
    kind     text NOT NULL CHECK (kind IN ('warning_80', 'warning_100', 'charge', 'suspend', 'restore')),
    key      text NOT NULL, -- what it happens once for: allowance, UTC hour or grant
    epoch    uuid,          -- the batch of usage that caused it
    seq      bigint,
    detail   jsonb NOT NULL DEFAULT '{}',
    feed_id  bigint,
    created  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, id),
    UNIQUE (owner, bucket, kind, key)
);
CREATE INDEX action_unsealed ON billing.action (created) WHERE feed_id IS NULL;

-- B7: the feed's ids are given in commit order, by one sealing step at a time under an advisory lock.
CREATE TABLE billing.feed (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner uuid NOT NULL,
    type  text NOT NULL CHECK (type IN ('ledger', 'action')),
    line  uuid NOT NULL,
    UNIQUE (owner, type, line)
);

-- ---- audit ----------------------------------------------------------------------------------------------------

CREATE TABLE gateway.audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   uuid,
    address inet,
    owner   uuid,
    action  text NOT NULL,
    object  text NOT NULL,
    detail  jsonb NOT NULL DEFAULT '{}'
);

-- ---- rights: the API reads and writes, but history is append-only for it; deployd only calls functions -------------

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT USAGE ON SCHEMA gateway, billing TO wiretoll_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA gateway, billing TO wiretoll_api;
        REVOKE UPDATE, DELETE ON gateway.audit, billing.usage_record, billing.feed FROM wiretoll_api;
        REVOKE DELETE ON billing.ledger, billing.action, billing.counter, billing.epoch, billing.bucket, billing.usage_hour,
            billing.overage_hour, billing.cycle FROM wiretoll_api;
        REVOKE ALL ON billing.usage_record_default FROM wiretoll_api; -- reached through its parent
        REVOKE UPDATE ON billing.ledger, billing.action FROM wiretoll_api;
        GRANT UPDATE (feed_id) ON billing.ledger, billing.action TO wiretoll_api;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_deploy') THEN
        GRANT USAGE ON SCHEMA gateway TO wiretoll_deploy;
    END IF;
END
$$;
