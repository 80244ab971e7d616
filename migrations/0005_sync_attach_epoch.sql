-- Raised by each connection of a device that attaches: the highest one is the device's connection, on
-- whichever node it is, and only its cursor moves the device's. Older binaries leave it as it is.
ALTER TABLE devices ADD COLUMN attach_epoch BIGINT NOT NULL DEFAULT 0
    CONSTRAINT devices_attach_epoch_check CHECK (attach_epoch >= 0);
