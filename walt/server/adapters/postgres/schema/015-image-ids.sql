-- The image that a name stands for, so that another one under the same name is a change.
-- NULL: none is there; empty: one was there before ids were kept.
ALTER TABLE images ADD COLUMN image_id text;
UPDATE images SET image_id = '';
