/* The module index._kernel: functions over plain buffers, and the type Searcher. What takes long releases the GIL. */
#include "module.h"

#include "ordering.h"

#define MAX_PARTS 256

static PyObject *as_bytes(const void *data, int64_t n_bytes) {
    return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)n_bytes);
}

PyDoc_STRVAR(build_table_doc, "build_table(codes, n_words, word, shift, n_bits, starts, positions) fills the last two.");

static PyObject *py_build_table(PyObject *module, PyObject *arguments) {
    Py_buffer codes = {0}, starts = {0}, positions = {0};
    Table table = {0};
    int n_words;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(
            arguments, "y*iiiiw*z*", &codes, &n_words, &table.word, &table.shift, &table.n_bits, &starts, &positions))
        return NULL;
    if (n_words < 1 || table.word < 0 || table.word >= n_words || table.shift < 0 || table.n_bits < 0 || table.n_bits > 31
        || table.shift + table.n_bits > 64) {
        PyErr_SetString(PyExc_ValueError, "build_table: bits that a code does not have");
        goto done;
    }
    Groups groups = {.codes = codes.buf, .n = codes.len / (8 * n_words), .n_words = n_words};
    if (holds(&starts, ((1ll << table.n_bits) + 1) * 4, "starts")
        && (!positions.buf || holds(&positions, 4 * groups.n, "positions"))) {
        Py_BEGIN_ALLOW_THREADS
        build_table(&groups, &table, starts.buf, positions.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
done:
    PyBuffer_Release(&codes);
    PyBuffer_Release(&starts);
    if (positions.obj) PyBuffer_Release(&positions);
    return result;
}

PyDoc_STRVAR(sort_codes_doc, "sort_codes(codes, n_words, order) fills order with the stable order of the codes.");

static PyObject *py_sort_codes(PyObject *module, PyObject *arguments) {
    Py_buffer codes = {0}, order = {0};
    int n_words, failed = 1;
    if (!PyArg_ParseTuple(arguments, "y*iw*", &codes, &n_words, &order)) return NULL;
    int64_t n = codes.len / (8 * n_words);
    if (holds(&order, 8 * n, "order")) {
        Py_BEGIN_ALLOW_THREADS
        failed = sort_codes(codes.buf, n, n_words, order.buf);
        Py_END_ALLOW_THREADS
        if (failed) PyErr_NoMemory();
    }
    PyBuffer_Release(&codes);
    PyBuffer_Release(&order);
    return failed ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(merge_doc, "merge(parts, k): of (limits, distances, ids) for the same queries the same: see kernel.py.");

static PyObject *py_merge(PyObject *module, PyObject *arguments) {
    PyObject *given, *found[3] = {NULL, NULL, NULL}, *result = NULL;
    Py_buffer buffers[3 * MAX_PARTS];
    Part parts[MAX_PARTS];
    int n_buffers = 0;
    int64_t n_queries = -1, total = 0;
    long long k;
    if (!PyArg_ParseTuple(arguments, "O!L", &PyTuple_Type, &given, &k)) return NULL;
    Py_ssize_t n_parts = PyTuple_Size(given);
    if (n_parts < 1 || n_parts > MAX_PARTS || k < 1) {
        PyErr_SetString(PyExc_ValueError, "merge: from 1 to 256 parts, and k at least 1");
        return NULL;
    }
    for (Py_ssize_t p = 0; p < n_parts; p++) {
        Py_buffer *limits = &buffers[n_buffers], *distances = limits + 1, *ids = limits + 2;
        if (!PyArg_ParseTuple(PyTuple_GetItem(given, p), "y*y*y*", limits, distances, ids)) goto done;
        n_buffers += 3;
        parts[p] = (Part){limits->buf, distances->buf, ids->buf, 0, 0};
        int64_t n = limits->len / 8 - 1;
        if (n < 0 || (p && n != n_queries)) {
            PyErr_SetString(PyExc_ValueError, "merge: parts of different queries");
            goto done;
        }
        n_queries = n;
        int64_t n_found = parts[p].limits[n];
        int in_order = parts[p].limits[0] == 0;
        for (int64_t q = 0; q < n; q++) in_order &= parts[p].limits[q] <= parts[p].limits[q + 1];
        if (!in_order) {
            PyErr_SetString(PyExc_ValueError, "merge: limits that do not ascend");
            goto done;
        }
        if (!holds(distances, 4 * n_found, "distances") || !holds(ids, 8 * n_found, "ids")) goto done;
        total += n_found;
    }
    /* Room for what will be written: no more than k for each query. */
    {
        total = 0;
        for (int64_t q = 0; q < n_queries; q++) {
            int64_t n_found = 0;
            for (Py_ssize_t p = 0; p < n_parts; p++) n_found += parts[p].limits[q + 1] - parts[p].limits[q];
            total += n_found < k ? n_found : k;
        }
    }
    int64_t *limits = malloc((n_queries + 1) * sizeof(int64_t)), *ids = malloc((total + 1) * sizeof(int64_t));
    int32_t *distances = malloc((total + 1) * sizeof(int32_t));
    if (!limits || !ids || !distances) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS
        limits[0] = 0;
        merge(parts, (int)n_parts, n_queries, k, limits, distances, ids);
        Py_END_ALLOW_THREADS
        found[0] = as_bytes(limits, 8 * (n_queries + 1));
        found[1] = as_bytes(distances, 4 * limits[n_queries]);
        found[2] = as_bytes(ids, 8 * limits[n_queries]);
        if (found[0] && found[1] && found[2]) result = PyTuple_Pack(3, found[0], found[1], found[2]);
        for (int i = 0; i < 3; i++) Py_XDECREF(found[i]);
    }
    free(limits);
    free(distances);
    free(ids);
done:
    for (int i = 0; i < n_buffers; i++) PyBuffer_Release(&buffers[i]);
    return result;
}

PyDoc_STRVAR(keep_doc,
    "keep(offsets, ids, mask, new_offsets, new_ids) writes groups without the ids where mask is 0; returns (ids left, groups\n"
    "that have none).");

static PyObject *py_keep(PyObject *module, PyObject *arguments) {
    Py_buffer offsets = {0}, ids = {0}, mask = {0}, new_offsets = {0}, new_ids = {0};
    if (!PyArg_ParseTuple(arguments, "y*y*y*w*w*", &offsets, &ids, &mask, &new_offsets, &new_ids)) return NULL;
    const int64_t *starts = offsets.buf, *from = ids.buf, n_ids = ids.len / 8, n = offsets.len / 8 - 1;
    int64_t *to_starts = new_offsets.buf, *to = new_ids.buf, n_kept = 0, n_empty = 0, at = 0;
    const char *wanted = mask.buf;
    PyObject *result = NULL;
    if (n < 0 || new_offsets.len < offsets.len || new_ids.len < ids.len || mask.len < n_ids) {
        PyErr_SetString(PyExc_ValueError, "keep: arrays of different lengths");
    } else {
        Py_BEGIN_ALLOW_THREADS
        for (int64_t g = 0; g < n; g++) {
            const int64_t stop = starts[g + 1] < n_ids ? starts[g + 1] : n_ids, before = n_kept;
            to_starts[g] = n_kept;
            for (; at < stop; at++) {
                to[n_kept] = from[at];
                n_kept += wanted[at];
            }
            n_empty += n_kept == before;
        }
        to_starts[n] = n_kept;
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("LL", (long long)n_kept, (long long)n_empty);
    }
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&ids);
    PyBuffer_Release(&mask);
    PyBuffer_Release(&new_offsets);
    PyBuffer_Release(&new_ids);
    return result;
}

static PyMethodDef functions[] = {
    {"merge", py_merge, METH_VARARGS, merge_doc},
    {"keep", py_keep, METH_VARARGS, keep_doc},
    {"build_table", py_build_table, METH_VARARGS, build_table_doc},
    {"sort_codes", py_sort_codes, METH_VARARGS, sort_codes_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "index._kernel", "Search of binary codes in C: see kernel.py.", -1, functions, NULL, NULL, NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module && add_searcher(module)) Py_CLEAR(module);
    return module;
}
