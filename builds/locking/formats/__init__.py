"""The field's own lock formats: what each can say is read and written, and what it cannot say is named."""
