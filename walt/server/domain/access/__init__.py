"""Who may come in from other machines: enrolment, renewal and revocation of certificates."""
