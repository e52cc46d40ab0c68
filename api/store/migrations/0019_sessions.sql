-- SPDX-License-Identifier: BSD-2-Clause
-- Sessions and one-time tokens have ids, by which they can be listed and ended: their tokens are known by a hash only.

ALTER TABLE gateway.token ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(), ADD COLUMN address inet; -- of who signed in
CREATE UNIQUE INDEX token_id ON gateway.token (id);
CREATE INDEX token_user ON gateway.token (user_id) WHERE user_id IS NOT NULL;
