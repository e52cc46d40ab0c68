-- SPDX-License-Identifier: BSD-2-Clause
-- What the networks of sites may be (P7), per location: private ranges, unless the operator says otherwise. A change
-- holds for networks that are named from then on.

ALTER TABLE gateway.location ADD COLUMN site_ranges cidr[] NOT NULL
    DEFAULT '{10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7}';

-- Search domains of a road warrior's configuration: what stands in "DNS" behind the servers' addresses.
ALTER TABLE gateway.peer ADD COLUMN search_domains text[] NOT NULL DEFAULT '{}';
