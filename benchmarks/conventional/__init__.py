"""The RealWorld endpoints of the mix as a competent team writes them: FastAPI, SQLAlchemy's ORM, pydantic."""
