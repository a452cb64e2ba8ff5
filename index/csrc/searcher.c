/* Searcher: made of arrays, which it holds on to. */
#include "module.h"

int holds(const Py_buffer *buffer, int64_t n_bytes, const char *name) {
    if (buffer->len >= n_bytes) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes, not %lld", name, buffer->len, (long long)n_bytes);
    return 0;
}

static int parse_groups(Searcher *self, int n_words) {
    const Py_buffer *codes = self->buffers, *offsets = codes + 1, *ids = codes + 2;
    if (n_words < 1 || n_words > MAX_WORDS) {
        PyErr_SetString(PyExc_ValueError, "n_words is out of range");
        return -1;
    }
    if (ids->buf && ids->itemsize != 4 && ids->itemsize != 8) {
        PyErr_SetString(PyExc_ValueError, "ids: neither int64 nor uint32");
        return -1;
    }
    Groups groups = {codes->buf, codes->len / (8 * n_words), n_words, offsets->buf, ids->buf};
    groups.narrow = ids->itemsize == 4;
    groups.n_ids = ids->buf ? ids->len / (groups.narrow ? 4 : 8) : groups.n;
    if (offsets->buf && !holds(offsets, (groups.n + 1) * 8, "offsets")) return -1;
    if (ids->buf && !offsets->buf && !holds(ids, groups.n * ids->itemsize, "ids")) return -1;
    /* Where each code has one id, offsets say nothing. */
    if (offsets->buf && groups.n_ids == groups.n) {
        int64_t g = 0;
        while (g <= groups.n && groups.offsets[g] == g) g++;
        if (g > groups.n) groups.offsets = NULL;
    }
    self->plan.groups = groups;
    self->plan.ascending = !groups.ids;
    return 0;
}

static int parse_lists(PyObject *given, Searcher *self) {
    Lists *lists = &self->plan.lists;
    Py_buffer *centroids = &self->buffers[self->n_buffers], *starts = centroids + 1, *radii = centroids + 2;
    long long n_probes, reach;
    if (given == Py_None) return 0;
    if (!PyArg_ParseTuple(given, "y*y*y*LL", centroids, starts, radii, &n_probes, &reach)) return -1;
    self->n_buffers += 3;
    const int64_t n = centroids->len / (8 * self->plan.groups.n_words);
    if (n > INT32_MAX / 4) {
        PyErr_SetString(PyExc_ValueError, "lists: too many");
        return -1;
    }
    if (!holds(starts, (n + 1) * 8, "starts") || !holds(radii, n * 4, "radii")) return -1;
    lists->n = n;
    lists->n_probes = n_probes;
    lists->reach = reach < 0 ? 0 : reach > 1000 * MAX_LEVELS ? 1000 * MAX_LEVELS : reach;
    lists->centroids = centroids->buf;
    lists->starts = starts->buf;
    lists->radii = radii->buf;
    return 0;
}

static int parse_graph(PyObject *given, Searcher *self) {
    Graph *graph = &self->plan.graph;
    const int64_t n_codes = self->plan.groups.n;
    Py_buffer *links = &self->buffers[self->n_buffers], *offsets = links + 1;
    long long entry, ef;
    if (given == Py_None) return 0;
    if (!PyArg_ParseTuple(given, "y*y*iLiL", links, offsets, &graph->m, &entry, &graph->top, &ef)) return -1;
    self->n_buffers += 2;
    if (!holds(offsets, (n_codes + 1) * 8, "offsets")) return -1;
    if (n_codes > INT32_MAX || graph->m < 1 || graph->m > 1024 || graph->top < 0 || graph->top > 64) {
        PyErr_SetString(PyExc_ValueError, "graph: n, m or top is out of range");
        return -1;
    }
    graph->links = links->buf;
    graph->n_links = links->len / 4;
    graph->offsets = offsets->buf;
    graph->entry = entry;
    graph->ef = ef < 1 ? 1 : ef;
    return 0;
}

static int parse_tables(PyObject *given, Searcher *self) {
    const Groups *groups = &self->plan.groups;
    Py_ssize_t n = PyTuple_Size(given);
    if (n < 0 || n > MAX_TABLES) {
        PyErr_SetString(PyExc_ValueError, "tables: a tuple of at most 64");
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        Table *table = &self->plan.tables.tables[i];
        Py_buffer *starts = &self->buffers[self->n_buffers], *positions = starts + 1;
        PyObject *fields = PyTuple_GetItem(given, i);
        if (!fields || !PyArg_ParseTuple(
                fields, "iiiy*z*", &table->word, &table->shift, &table->n_bits, starts, positions))
            return -1;
        self->n_buffers += 2;
        if (table->word < 0 || table->word >= groups->n_words || table->n_bits < 0 || table->n_bits > 31
            || table->shift < 0 || table->shift + table->n_bits > 64) {
            PyErr_SetString(PyExc_ValueError, "tables: bits that a code does not have");
            return -1;
        }
        if (!holds(starts, ((1ll << table->n_bits) + 1) * 4, "starts")) return -1;
        table->starts = starts->buf;
        table->positions = positions->buf;
        table->n_positions = positions->buf ? positions->len / 4 : groups->n;
    }
    self->plan.tables.n_tables = (int)n;
    return 0;
}

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *tables, *lists, *graph;
    Searcher *self = (Searcher *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    int n_words;
    long long alone;
    (void)names;
    if (!self) return NULL;
    if (PyArg_ParseTuple(
            arguments, "y*iz*z*O!(dd)OOL", self->buffers, &n_words, self->buffers + 1, self->buffers + 2, &PyTuple_Type,
            &tables, &self->plan.tables.look_up_cost, &self->plan.tables.candidate_cost, &lists, &graph, &alone)) {
        self->n_buffers = 3;
        self->alone = alone;
        if (!parse_groups(self, n_words) && !parse_tables(tables, self) && !parse_lists(lists, self)
            && !parse_graph(graph, self))
            return (PyObject *)self;
    }
    Py_DECREF(self);
    return NULL;
}

static void unmake(PyObject *object) {
    Searcher *self = (Searcher *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (int i = 0; i < self->n_buffers; i++)
        if (self->buffers[i].obj) PyBuffer_Release(&self->buffers[i]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(find_doc,
    "find(queries, k, radius, first, last, skipped) -> (limits, distances, ids), each as bytes: see kernel.py.");
PyDoc_STRVAR(search_doc,
    "search(queries, k, radius, n_bits) -> (distances, ids): what HammingIndex.search returns. None where arguments have to be\n"
    "looked at more closely, or there is work for several threads.");

static PyMethodDef methods[] = {
    {"find", searcher_find, METH_VARARGS, find_doc},
    {"search", (PyCFunction)(void (*)(void))searcher_search, METH_FASTCALL, search_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(type_doc, "Searcher(words, n_words, offsets, ids, tables, costs, lists, graph, alone): see kernel.py.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)type_doc},
    {Py_tp_new, (void *)make},
    {Py_tp_dealloc, (void *)unmake},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {"index._kernel.Searcher", sizeof(Searcher), 0, Py_TPFLAGS_DEFAULT, slots};

int add_searcher(PyObject *module) {
    PyObject *type = PyType_FromSpec(&spec);
    int failed = !type || PyModule_AddObjectRef(module, "Searcher", type) || prepare_arrays();
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
