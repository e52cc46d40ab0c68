-- SPDX-License-Identifier: BSD-2-Clause
-- A9: an image that a location names is in use; deleting it would have changed the location.

ALTER TABLE gateway.location DROP CONSTRAINT location_image_fkey,
    ADD CONSTRAINT location_image_fkey FOREIGN KEY (image) REFERENCES gateway.image;
