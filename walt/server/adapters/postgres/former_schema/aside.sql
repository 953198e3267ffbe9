-- Tables of an older WalT move to a schema of their own, with their indexes and sequences.
CREATE SCHEMA walt_former;
ALTER TABLE public.devices SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.topology SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.images SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.nodes SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.switches SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.switchports SET SCHEMA walt_former;
ALTER TABLE public.logstreams SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.logs SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.checkpoints SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.poeoff SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.vpnauth SET SCHEMA walt_former;
ALTER TABLE IF EXISTS public.vpnnodes SET SCHEMA walt_former;
DO $$
BEGIN
    IF to_regtype('public.logmode') IS NOT NULL THEN
        ALTER TYPE public.logmode SET SCHEMA walt_former;
    END IF;
END
$$;
