"""What commands print: tables for a person, JSON for a machine."""
