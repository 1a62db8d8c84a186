"""Who may call this server, and what: tokens, scopes, tenants, rates, the audit log."""
